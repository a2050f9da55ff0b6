"""Copying and moving whole files and folders: within S3, and between S3 and a folder on disk.

Blocking, for worker threads. The rule of every move: copy everything, check every copy, and only
then delete exactly what was checked. What changed meanwhile, or came later, stays where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from boto3.s3.transfer import TransferConfig
from tornado.web import HTTPError

from ..s3.failures import StoreErrors
from ..s3.parallel import for_each
from . import models
from .bucket import FAN_OUT, MIB, Bucket, Entry, StoreError
from .paths import KEEP, safe_relative

TRANSFER = TransferConfig(
    multipart_threshold=64 * MIB, multipart_chunksize=16 * MIB, max_concurrency=4
)
# part sizes in use: ours and those of boto3, aws, mc, rclone, s3cmd
PART_SIZES = [n * MIB for n in (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)]
REMEMBERED = 32
Plan = list[tuple[Entry, str]]  # what to copy, and the key of its copy


@dataclass(frozen=True)
class Place:
    """A file or folder in a bucket."""

    bucket: Bucket
    key: str

    def entries(self) -> list[Entry]:
        """The object, or all objects of the folder; empty if there is neither."""
        own = self.bucket.head(self.key)
        return [own] if own is not None else self.bucket.walk(self.key)


class Moves:
    """Moves within S3. Remembers those that were interrupted, so that the same move again goes on
    where it stopped instead of finding its own half in the way."""

    def __init__(self) -> None:
        self._interrupted: OrderedDict[tuple[str, str, str, str], dict[str, Entry]] = OrderedDict()

    def move(self, source: Place, target: Place) -> None:
        token = (source.bucket.name, source.key, target.bucket.name, target.key)
        plan = plan_copy(source, target)
        copies = {key: entry for entry, key in plan}
        planned = {**self._interrupted.get(token, {}), **copies}
        there = {entry.key: entry for entry in target.entries()}
        if there and not (token in self._interrupted and _all_like(there, planned)):
            raise HTTPError(409, f"There is already something at {target.key!r}")
        if not plan:
            if there:  # all copied and deleted, only the answer was lost
                del self._interrupted[token]
                return
            raise HTTPError(404, f"No such file or directory: {source.key!r}")
        self._remember(token, planned)
        todo = [(entry, key) for entry, key in plan if key not in there]
        for_each(lambda step: target.bucket.copy(source.bucket, *step), todo, FAN_OUT)
        changed = delete_checked(source, [entry for entry, _ in plan])
        self._interrupted.pop(token, None)
        if changed:
            raise HTTPError(
                409, f"{changed!r} changed while it was moved; it was copied and is still there."
            )

    def _remember(self, token: tuple[str, str, str, str], planned: dict[str, Entry]) -> None:
        self._interrupted[token] = planned
        while len(self._interrupted) > REMEMBERED:
            self._interrupted.popitem(last=False)


def _all_like(there: dict[str, Entry], planned: dict[str, Entry]) -> bool:
    for key, entry in there.items():
        wanted = planned.get(key)
        if wanted is None or wanted.size != entry.size:
            return False
        if wanted.md5 and entry.md5 and wanted.md5 != entry.md5:
            return False
    return True


def plan_copy(source: Place, target: Place) -> Plan:
    return [(e, target.key + e.key[len(source.key) :]) for e in source.entries()]


def copy(source: Place, target: Place) -> None:
    """Copy a file or folder; takes back what it made if it cannot make all."""
    plan = plan_copy(source, target)
    if not plan:
        raise HTTPError(404, f"No such file or directory: {source.key!r}")
    try:
        for_each(lambda step: target.bucket.copy(source.bucket, *step), plan, FAN_OUT)
    except BaseException:
        take_back(target.bucket, [key for _, key in plan])
        raise


def take_back(bucket: Bucket, keys: Sequence[str]) -> None:
    # the error that led here is the one to tell
    with contextlib.suppress(StoreError, *StoreErrors):
        bucket.delete(keys)


def delete_checked(source: Place, entries: Sequence[Entry]) -> str | None:
    """Delete the entries that are as they were; the key of one that is not, if any."""
    now = {entry.key: entry for entry in source.entries()}
    same = [e for e in entries if e.key in now and _unchanged(now[e.key], e)]
    source.bucket.delete(e.key for e in same)
    kept = {e.key for e in entries if e.key in now} - {e.key for e in same}
    return min(kept, default=None)


def _unchanged(now: Entry, then: Entry) -> bool:
    same_etag = now.etag == then.etag or not (now.etag and then.etag)
    return same_etag and (now.size, now.modified) == (then.size, then.modified)


# --- between a disk and S3 ---


@dataclass(frozen=True)
class LocalFile:
    path: Path
    relative: str  # "" for the file that was named itself
    size: int
    mtime_ns: int

    def unchanged(self) -> bool:
        try:
            seen = self.path.stat()
        except OSError:
            return False
        return (seen.st_size, seen.st_mtime_ns) == (self.size, self.mtime_ns)


def local_files(root: Path) -> tuple[list[LocalFile], list[Path]]:
    """The files of a file or folder, and its folders from the deepest up."""
    if not root.is_dir():
        return [_local(root, "")], []
    files: list[LocalFile] = []
    folders: list[Path] = []

    def fail(error: OSError) -> None:
        raise error

    for folder, names, leaves in os.walk(root, topdown=True, onerror=fail):
        folders.append(Path(folder))
        for name in [*names, *leaves]:
            path = Path(folder, name)
            if name in leaves:
                files.append(_local(path, "/" + path.relative_to(root).as_posix()))
            elif path.is_symlink():
                raise HTTPError(400, f"{path.name!r} is a link to a folder; S3 has no links")
    return files, folders[::-1]


def _local(path: Path, relative: str) -> LocalFile:
    seen = path.stat()
    if not stat.S_ISREG(seen.st_mode):
        raise HTTPError(400, f"{path.name!r} is no ordinary file; S3 cannot keep it")
    return LocalFile(path, relative, seen.st_size, seen.st_mtime_ns)


def upload(root: Path, target: Place, move: bool) -> str | None:
    """Copy or move from the disk to S3; the name of a file that changed meanwhile, if any."""
    files, folders = local_files(root)
    try:
        for_each(lambda file: _upload_file(file, target), files, FAN_OUT)
        for folder in folders:
            if not any(folder.iterdir()):
                relative = folder.relative_to(root).as_posix()
                name = target.key if relative == "." else f"{target.key}/{relative}"
                target.bucket.make_folder(name)
    except BaseException:
        take_back(target.bucket, [e.key for e in _best_effort(target)])
        raise
    return _remove_local(files, folders) if move else None


def _best_effort(target: Place) -> list[Entry]:
    try:
        return target.entries()
    except StoreErrors:
        return []


def _upload_file(file: LocalFile, target: Place) -> None:
    bucket, key = target.bucket, target.key + file.relative
    extra = {"ContentType": models.content_type(key), **bucket.write_extras}
    bucket.client.upload_file(
        str(file.path), bucket.name, bucket.key(key), ExtraArgs=extra, Config=TRANSFER
    )
    made = bucket.head(key)
    if not file.unchanged():
        raise HTTPError(409, f"{file.path.name!r} changed while it was copied; try again")
    if made is None or made.size != file.size:
        raise StoreError(f"the copy of {file.path.name!r} is not whole")
    if bucket.etags_are_md5 and like_etag(file.path, made) is False:
        raise StoreError(f"the copy of {file.path.name!r} is not like the original")


def _remove_local(files: Sequence[LocalFile], folders: Sequence[Path]) -> str | None:
    left: str | None = None
    for file in files:
        if file.unchanged():
            file.path.unlink()
        else:
            left = file.path.name
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something came meanwhile: it stays
            left = left or folder.name
    return left


def download(source: Place, target: Path, move: bool) -> str | None:
    """Copy or move from S3 to the disk. ``target`` appears when everything is there."""
    entries = source.entries()
    if not entries:
        raise HTTPError(404, f"No such file or directory: {source.key!r}")
    work = Path(tempfile.mkdtemp(prefix=".gpucloud-", dir=target.parent))
    try:
        made = work / "copy"
        for_each(lambda entry: _download_file(source, entry, made), entries, FAN_OUT)
        if os.path.lexists(target):
            raise HTTPError(409, f"There is already something at {target.name!r}")
        made.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return delete_checked(source, entries) if move else None


def _download_file(source: Place, entry: Entry, made: Path) -> None:
    relative = entry.key[len(source.key) :].lstrip("/") if entry.key != source.key else ""
    if relative.endswith("/") or (not relative and entry.key != source.key):
        # `name/`, another client's way to mark a folder
        (made / _checked(relative.rstrip("/"))).mkdir(parents=True, exist_ok=True)
        return
    path = made / _checked(relative) if relative else made
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == KEEP and not entry.size:
        return  # the folder is there, and needs no marker on a disk
    bucket = source.bucket
    bucket.client.download_file(bucket.name, bucket.key(entry.key), str(path), Config=TRANSFER)
    if path.stat().st_size != entry.size or (
        bucket.etags_are_md5 and like_etag(path, entry) is False
    ):
        raise StoreError(f"{entry.key!r} did not arrive whole, or was changed meanwhile")


def _checked(relative: str) -> str:
    """Keys may be anything; a path on the disk must stay in its folder."""
    if relative and not safe_relative(relative):
        raise HTTPError(400, f"The key {relative!r} cannot be a file name in the home volume")
    return relative


def like_etag(path: Path, entry: Entry) -> bool | None:
    """Does the file have the ETag's content? None where an ETag cannot tell."""
    whole, parts = file_digests(path, _part_sizes(entry))
    if entry.md5:
        return whole == entry.md5
    return True if entry.etag in parts else None


def _part_sizes(entry: Entry) -> list[int]:
    _, dash, count = entry.etag.partition("-")
    if not dash or not count.isdigit():
        return []
    return [size for size in PART_SIZES if -(-entry.size // size) == int(count)]


def file_digests(path: Path, part_sizes: Sequence[int]) -> tuple[str, list[str]]:
    """The MD5 of a file, and the multipart ETags that it has with parts of these sizes."""
    etags = [_multipart_etag(path, size) for size in part_sizes]
    with path.open("rb") as file:
        whole = hashlib.file_digest(file, _md5).hexdigest()
    return whole, etags


def _multipart_etag(path: Path, size: int) -> str:
    sums = []
    with path.open("rb") as file:
        while (part := _part_digest(file, size)) is not None:
            sums.append(part)
    return f"{_md5(b''.join(sums)).hexdigest()}-{len(sums)}"


def _part_digest(file: BinaryIO, size: int) -> bytes | None:
    digest, left = _md5(), size
    while left and (block := file.read(min(left, MIB))):
        digest.update(block)
        left -= len(block)
    return digest.digest() if left < size else None


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
