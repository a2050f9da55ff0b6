"""The working directory as a manifest: what travels with a job, and what does not.

Left out: what `.gitignore` and `.gpucloudignore` say (of this folder, those below, and those above
in the same git repository, but not above the home), version control, caches of Python and Jupyter,
and, where the working directory is the home, its hidden files: those are settings and keys.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pathspec import GitIgnoreSpec

from ..errors import LabError
from .manifest import File, inside

IGNORE_FILES = (".gitignore", ".gpucloudignore")
NEVER = {".git", ".hg", ".svn", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache"}
NEVER |= {"lost+found"}  # of the file system, at the top of a volume: nobody but root reads it
MIB = 2**20
MAX_BYTES = 200 * MIB
MAX_FILES = 20_000
_NAMED = 5  # largest files told in a refusal


@dataclass(frozen=True)
class Captured:
    """The files that travel, and where each content lies on this machine."""

    files: tuple[File, ...]
    sources: dict[str, Path | bytes] = field(default_factory=dict)  # by SHA-256
    skipped: tuple[str, ...] = ()  # neither file nor link: sockets, pipes

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def with_file(self, path: str, content: bytes) -> Captured:
        """With one more file, or another content for one, that is on no disk: a notebook's cell."""
        digest = hashlib.sha256(content).hexdigest()
        others = [file for file in self.files if file.path != path]
        files = tuple(sorted([*others, File(path, digest, len(content))]))
        return Captured(files, {**self.sources, digest: content}, self.skipped)


def capture(root: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> Captured:
    """Everything below ``root`` that is not ignored. Raises LabError: too much, or a bad link."""
    root = root.resolve()
    found: list[tuple[str, os.stat_result]] = []
    links: list[File] = []
    skipped: list[str] = []
    total = 0
    for path, entry in _walk(root):
        if entry.is_symlink():
            links.append(File(path, target=_link(root, path)))
            continue
        try:
            seen = entry.stat()
        except FileNotFoundError:
            continue  # deleted since it was listed
        if not stat.S_ISREG(seen.st_mode):
            skipped.append(path)
            continue
        found.append((path, seen))
        total += seen.st_size
        if len(found) > max_files:
            _refuse_number(root, found, max_files)
    if total > max_bytes:
        _refuse_size(found, total, max_bytes)
    files: list[File] = []
    sources: dict[str, Path | bytes] = {}
    for path, seen in found:
        digest = hash_of(root / path)
        sources[digest] = root / path
        executable = bool(seen.st_mode & stat.S_IXUSR)
        files.append(File(path, digest, seen.st_size, executable))
    return Captured(tuple(sorted([*files, *links])), sources, tuple(skipped))


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Paths below ``root`` that are not ignored, and their entries; never a folder.

    As git does it: the deepest file that says something about a path decides, and nothing in an
    ignored folder comes back.
    """
    hidden = root == Path.home().resolve()
    above = [*_rules_above(root)]
    todo: list[tuple[str, list[tuple[str, GitIgnoreSpec]]]] = [("", above)]
    while todo:
        folder, rules = todo.pop()
        own = _rules_of(root / folder)
        # a path is matched relative to where its rules stand
        here = [*rules, (f"{root / folder}/".replace("//", "/"), own)] if own else rules
        for entry in _listed(root / folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name in NEVER or (hidden and not folder and _is_private(entry.name)):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if _ignored(f"{root / path}{'/' if is_folder else ''}", here):
                continue
            if is_folder:
                todo.append((path, here))
            else:
                yield path, entry


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in the order of names. Raises LabError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_private(name: str) -> bool:
    return name.startswith(".") and name not in IGNORE_FILES


def _ignored(path: str, rules: list[tuple[str, GitIgnoreSpec]]) -> bool:
    for base, spec in reversed(rules):
        said = spec.check_file(path.removeprefix(base)).include
        if said is not None:
            return said
    return False


def _rules_of(folder: Path) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for name in IGNORE_FILES:
        try:
            lines += (folder / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
    return GitIgnoreSpec.from_lines(lines) if lines else None


def _rules_above(root: Path) -> list[tuple[str, GitIgnoreSpec]]:
    """Of the folders above ``root``, up to the top of its git repository; none outside of one.

    A repository that the home itself lies in is not the user's: `make run` keeps homes in a folder
    that its own repository ignores.
    """
    above: list[Path] = []
    home = Path.home().resolve()
    for folder in (root, *root.parents):
        if folder != root:
            above.append(folder)
        if (folder / ".git").exists():
            return [(f"{f}/", own) for f in reversed(above) if (own := _rules_of(f)) is not None]
        if folder == home:
            break
    return []


def _link(root: Path, path: str) -> str:
    """The target, relative. Raises LabError if it leads out of ``root``."""
    place = root / path
    target = place.readlink()
    # a link to somewhere in here by its full name: the copy has another
    text = os.path.relpath(target, place.parent) if target.is_absolute() else str(target)
    if inside(path.rpartition("/")[0], text) and place.resolve().is_relative_to(root):
        return Path(text).as_posix()
    raise LabError(
        400,
        "link_outside",
        f"{path} is a link to {target}, outside of the working directory: the job would not find "
        "it. Copy what it leads to, put it into S3, or name the link in .gpucloudignore.",
        path=path,
    )


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content. Raises LabError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> LabError:
    return LabError(
        400,
        "unreadable",
        f"{path} cannot be read ({error.strerror}). Name it in .gpucloudignore if the job "
        "does not need it.",
    )


def _refuse_size(found: list[tuple[str, os.stat_result]], total: int, limit: int) -> NoReturn:
    largest = sorted(found, key=lambda item: -item[1].st_size)[:_NAMED]
    named = ", ".join(f"{path} ({_mib(seen.st_size)})" for path, seen in largest)
    raise LabError(
        400,
        "code_too_large",
        f"The working directory has {_mib(total)}, and a job may carry {_mib(limit)}. The largest "
        f"files: {named}. Name what the job does not need in .gpucloudignore (as in .gitignore), "
        "and read data from S3.",
        bytes=total,
        limit=limit,
        largest=[path for path, _ in largest],
    )


def _refuse_number(root: Path, found: list[tuple[str, os.stat_result]], limit: int) -> NoReturn:
    counts: dict[str, int] = {}
    for path, _ in found:
        counts[path.partition("/")[0]] = counts.get(path.partition("/")[0], 0) + 1
    most = sorted(counts, key=lambda name: -counts[name])[:_NAMED]
    raise LabError(
        400,
        "too_many_files",
        f"{root} has more than {limit} files, most of them in {', '.join(most)}. Name what the job "
        "does not need in .gpucloudignore, or run it from a folder of its own.",
        limit=limit,
    )


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"
