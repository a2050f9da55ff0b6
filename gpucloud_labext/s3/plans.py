"""What a copy or a sync has to move: from where, to where, how much. Nothing is moved here.

`cp` is as on a disk: into a folder that is there, else to that name. `sync` makes the target's
content like the source's, and deletes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..contents.bucket import Bucket, Entry
from ..contents.connection import Connection, Settings
from ..contents.paths import KEEP, safe_relative
from ..errors import LabError
from . import client
from .places import Place

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Move:
    """One file."""

    source: Place
    target: Place
    size: int
    modified: float  # of the source, seconds since 1970


@dataclass(frozen=True)
class _Found:
    """A file below a source or a target, by its name relative to that."""

    relative: str
    size: int
    modified: float
    md5: str | None = None  # where the store tells it
    path: Path | None = None  # where it is on the disk


class _Following(Connection):
    """With the kernel's own client, whose key follows the mounted file."""

    def client(self) -> S3Client:
        return client()


def bucket_of(place: Place) -> Bucket:
    """The store's side of an S3 place."""
    return Bucket(_Following(Settings(bucket=place.bucket)))


def plan_copy(source: Place, target: Place, recursive: bool) -> list[Move]:
    """Raises LabError where there is nothing, or a folder without ``recursive``."""
    _check(source, target)
    if _is_folder(target) and source.name:
        target = target.joined(source.name)
    one = None if source.as_folder else _file(source)
    if one is not None:
        return [Move(source, target, one.size, one.modified)]
    found = _below(source)
    if not recursive:
        raise LabError(400, "usage", f"{source} is a folder: add -r to copy all that is in it")
    return [_move(file, source, target) for file in found]


def plan_sync(source: Place, target: Place) -> tuple[list[Move], int]:
    """What differs, and how many files are alike already. Raises LabError."""
    _check(source, target)
    present = {f.relative: f for f in _list(target)}
    moves, alike = [], 0
    for file in _below(source):
        if _is_alike(file, present.get(file.relative)):
            alike += 1
        else:
            moves.append(_move(file, source, target))
    return moves, alike


def _move(file: _Found, source: Place, target: Place) -> Move:
    at = source.joined(file.relative), target.joined(file.relative)
    return Move(*at, file.size, file.modified)


def _check(source: Place, target: Place) -> None:
    if not source.is_s3 and not target.is_s3:
        raise LabError(
            400, "usage", "One of the two must be in S3: s3://BUCKET/KEY, or s3/... for your own"
        )
    if source == target or (
        source.bucket == target.bucket and f"{target.key}/".startswith(f"{source.key}/")
    ):
        raise LabError(400, "usage", f"{source} cannot be copied into itself")


def _is_alike(source: _Found, target: _Found | None) -> bool:
    """By size, and by content where both tell it, else by time: as `aws s3 sync` and rclone do."""
    if target is None or source.size != target.size:
        return False
    if target.modified >= source.modified and not (source.md5 and target.md5):
        return True
    known = source.md5 or target.md5
    if known is None:
        return False
    return known == (source.md5 or _md5(source)) == (target.md5 or _md5(target))


def _md5(file: _Found) -> str | None:
    """Of a file on the disk: reading it is quicker than moving it."""
    if file.path is None:
        return None
    with file.path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _is_folder(place: Place) -> bool:
    if place.as_folder:
        return True
    if place.is_s3:
        return not place.key or bucket_of(place).any_under(place.key)
    return place.path.is_dir()


def _file(place: Place) -> _Found | None:
    if place.is_s3:
        entry = bucket_of(place).head(place.key) if place.key else None
        return _of_entry(entry, "") if entry else None
    return _of_path(place.path, "") if place.path.is_file() else None


def _below(source: Place) -> list[_Found]:
    found = list(_list(source))
    if not found:
        raise LabError(404, "s3_not_found", f"There is nothing at {source}")
    return found


def _list(folder: Place) -> Iterator[_Found]:
    return _objects(folder) if folder.is_s3 else _files(folder.path)


def _objects(folder: Place) -> Iterator[_Found]:
    cut = len(folder.key) + 1 if folder.key else 0
    for entry in bucket_of(folder).walk(folder.key):
        relative = entry.key[cut:]
        # marks of folders, ours and others', and what the file browser keeps for itself
        if not relative or relative.endswith("/") or entry.key.startswith(".gpucloud/"):
            continue
        if relative.rpartition("/")[2] == KEEP:
            continue
        if not safe_relative(relative):
            raise LabError(
                400, "bad_name", f"The key {entry.key[:200]!r} can be no file name: copy it alone"
            )
        yield _of_entry(entry, relative)


def _files(folder: Path) -> Iterator[_Found]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for path in sorted(_regular(root, names)):
            yield _of_path(path, path.relative_to(folder).as_posix())


def _regular(root: str, names: Iterable[str]) -> Iterator[Path]:
    """Files, also by a link; not sockets and links to nowhere."""
    return (path for path in (Path(root, name) for name in names) if path.is_file())


def _of_entry(entry: Entry, relative: str) -> _Found:
    return _Found(relative, entry.size, entry.modified.timestamp(), entry.md5)


def _of_path(path: Path, relative: str) -> _Found:
    status = path.stat()
    # whole seconds: that is all that S3 tells
    return _Found(relative, status.st_size, int(status.st_mtime), path=path)
