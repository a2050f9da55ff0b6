"""Run one benchmark by its name, or all of them: `python -m bench [NAME]`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path


def main() -> int:
    names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)])]
    names = [n for n in names if not n.startswith("_") and n != "report"]
    wanted = sys.argv[1:] or names
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    for name in wanted:
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
