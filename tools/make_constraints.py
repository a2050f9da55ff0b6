"""Write constraints.txt: the versions, as installed in this environment, of all that we need.

Only what the extras of setup.cfg lead to is listed, so a tool that a developer added by hand does
not get in. Run it by `make constraints`, which makes a fresh environment first.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
HEADER = """\
# The versions that are tested together; `make constraints` renews the list. Installing without it
# works, too, but resolving takes minutes.
"""


def wanted() -> Iterator[Requirement]:
    """What setup.cfg asks for, in every extra."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for line in "\n".join(lists).splitlines():
        text = line.partition("#")[0].strip()
        if text:
            yield Requirement(text)


def closure(requirements: Iterator[Requirement]) -> dict[str, str]:
    """name -> version of the requirements and of what they require."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            print(f"not installed, left out: {requirement}", file=sys.stderr)
            continue
        versions[name] = found.version
        for text in found.requires or []:
            inner = Requirement(text)
            markers = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if inner.marker is None or any(inner.marker.evaluate(m) for m in markers):
                todo.append(inner)
    return versions


def main() -> None:
    lines = [f"{name}=={version}\n" for name, version in sorted(closure(wanted()).items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
    print(f"constraints.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()
