"""Which Python packages the user installed over the image, as exact requirements for pip.

An image tells what it brought by a baseline, written when it is built::

    python -m gpucloud_labext.jobs.packages > <sys.prefix>/etc/gpucloud/packages.txt

Without one, the user's are those that lie in the user's own site-packages or elsewhere below the
home, which is where `pip install --user` puts them; the replicas' image has all others.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import LabError

BASELINE = Path("etc/gpucloud/packages.txt")


@dataclass(frozen=True)
class Installed:
    """What a job needs beside its image."""

    requirements: tuple[str, ...] = ()
    import_paths: tuple[str, ...] = ()  # of editable installs, relative to the working directory


def installed_by_user(
    root: Path,
    leave_out: Iterable[str] = (),
    found: Iterable[Distribution] | None = None,
    prefix: Path | None = None,
    home: Path | None = None,
) -> Installed:
    """The packages beside the image's, for code in ``root``. Raises LabError for what no other
    machine could install; names in ``leave_out`` are not looked at."""
    prefix = prefix or Path(sys.prefix)
    baseline = _baseline(prefix)
    without = {canonical(name) for name in leave_out}
    requirements: set[str] = set()
    paths: list[str] = []
    seen: set[str] = set()
    for dist in distributions() if found is None else found:
        name = canonical(dist.metadata["Name"] or "")
        # the first on sys.path is the one that is imported
        if not name or name in seen:
            continue
        seen.add(name)
        if name in without or not _is_users(dist, name, baseline, prefix, home or Path.home()):
            continue
        origin = _direct_url(dist)
        if origin is None:
            requirements.add(f"{name}=={dist.version}")
        elif "vcs_info" in origin:
            requirements.add(_from_vcs(name, origin))
        elif "archive_info" in origin and not origin["url"].startswith("file:"):
            requirements.add(f"{name} @ {origin['url']}")
        else:
            paths += _local(dist, name, origin, root)
    return Installed(tuple(sorted(requirements)), tuple(dict.fromkeys(paths)))


def canonical(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


def _baseline(prefix: Path) -> dict[str, str] | None:
    try:
        lines = (prefix / BASELINE).read_text().splitlines()
    except OSError:
        return None
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {name.strip(): version.strip() for name, _, version in pairs}


def _is_users(
    dist: Distribution, name: str, baseline: dict[str, str] | None, prefix: Path, home: Path
) -> bool:
    if baseline is not None:
        return baseline.get(name) != dist.version
    place = Path(str(dist.locate_file(""))).resolve()
    if place.is_relative_to(prefix.resolve()):
        return False
    return place.is_relative_to(home.resolve())


def _direct_url(dist: Distribution) -> dict[str, Any] | None:
    """Where it came from if not from an index (PEP 610)."""
    text = dist.read_text("direct_url.json")
    if text is None:
        return None
    value: dict[str, Any] = json.loads(text)
    return value


def _from_vcs(name: str, origin: dict[str, Any]) -> str:
    """An installed commit, exactly; an editable clone too, if the commit is where it came from."""
    vcs = origin["vcs_info"]
    where = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
    return f"{name} @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}{where}"


def _local(dist: Distribution, name: str, origin: dict[str, Any], root: Path) -> Iterator[str]:
    """The import paths of an editable install whose sources travel with the code."""
    place = Path(unquote(urlsplit(origin["url"]).path))
    editable = bool(origin.get("dir_info", {}).get("editable"))
    if editable and place.resolve().is_relative_to(root.resolve()):
        lines = [line for line in _path_lines(dist) if Path(line).is_absolute()]
        folders = [Path(line).resolve() for line in lines]
        if folders and all(folder.is_relative_to(root.resolve()) for folder in folders):
            yield from (folder.relative_to(root.resolve()).as_posix() for folder in folders)
            return
    how = "in editable mode from" if editable else "from"
    raise LabError(
        400,
        "local_package",
        f"The package {name} is installed {how} {place}, which the job's replicas do not have. "
        "Put its sources into the working directory, install it from an index or from git, or "
        f"leave it out: --without-package {name}.",
        package=name,
    )


def _path_lines(dist: Distribution) -> Iterator[str]:
    """What its .pth files add to Python's search path."""
    for file in dist.files or ():
        if file.name.endswith(".pth"):
            text = Path(str(dist.locate_file(file))).read_text()
            yield from (line.strip() for line in text.splitlines() if line.strip())


def main() -> None:
    """Print this environment's packages: the baseline of an image."""
    pairs = {canonical(d.metadata["Name"] or ""): d.version for d in distributions()}
    print("\n".join(f"{name}=={version}" for name, version in sorted(pairs.items()) if name))


if __name__ == "__main__":
    main()
