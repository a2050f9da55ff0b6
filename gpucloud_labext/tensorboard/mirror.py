"""A local copy of the event files below an S3 prefix, kept up to date: what TensorBoard reads.

TensorBoard alone reads `s3://` in a way that asks for whole objects again and again, and not at all
where TensorFlow is installed. Here a listing every few seconds tells what changed, and of a file
that grew only the new end is fetched.

A process of its own, started by `serve`; it ends when its standard input does. Keys are those of
the mounted credentials file, so a renewed key is used at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..contents.bucket import Bucket, Entry, StoreError
from ..contents.connection import Connection, Settings
from ..contents.errors import explain
from ..contents.paths import safe_relative
from ..s3.failures import StoreErrors

log = logging.getLogger(__name__)
PROJECTOR = "projector_config.pbtxt"
BLOCK = 2**20
# Bytes before the known end that are read again, to see that the file grew and was not replaced.
OVERLAP = 16 * 1024
WORKERS = 4


@dataclass(frozen=True)
class Source:
    """What `serve` is told to show; goes to this process as JSON."""

    bucket: str
    prefix: str
    endpoint_url: str
    region_name: str
    poll_seconds: float
    max_bytes: int


class Mirror:
    """Keeps ``target`` like the prefix. Only event files, and what plugins put beside them."""

    def __init__(self, store: Bucket, prefix: str, target: Path, max_bytes: int) -> None:
        self._store = store
        self._prefix = prefix
        self._target = target
        self._max_bytes = max_bytes
        # what was copied, as the listing described it
        self._copied: dict[str, Entry] = {}
        self._told: set[str] = set()

    def listing(self) -> dict[str, Entry]:
        """What is to be copied, by the path below the prefix."""
        found = {self._below(entry.key): entry for entry in self._store.walk(self._prefix)}
        names = wanted(name for name in found if safe_relative(name))
        return self._within_limit({name: found[name] for name in names})

    def sync(self, listed: dict[str, Entry]) -> None:
        """Fetch what is new, the smallest files first: they make the first charts."""
        for name in self._copied.keys() - listed.keys():
            (self._target / name).unlink(missing_ok=True)
            del self._copied[name]
        changed = [name for name in listed if not self._is_copied(name, listed[name])]
        changed.sort(key=lambda name: listed[name].size)
        with ThreadPoolExecutor(WORKERS, "mirror") as pool:
            for _ in pool.map(lambda name: self._fetch_and_note(name, listed[name]), changed):
                pass

    def _below(self, key: str) -> str:
        return key[len(self._prefix) + 1 :] if self._prefix else key

    def _within_limit(self, listed: dict[str, Entry]) -> dict[str, Entry]:
        """The newest, where there is more than the limit."""
        kept, room = {}, self._max_bytes
        for name, entry in sorted(listed.items(), key=lambda i: i[1].modified, reverse=True):
            if entry.size <= room:
                kept[name] = entry
                room -= entry.size
            else:
                self._tell(
                    f"left out, more than {self._max_bytes >> 20} MiB in all "
                    f"(TensorBoards.s3_cache_mib): {name}"
                )
        return kept

    def _is_copied(self, name: str, entry: Entry) -> bool:
        old = self._copied.get(name)
        if old is None or (old.size, old.modified) != (entry.size, entry.modified):
            return False
        # listings of some servers have no ETag for fresh keys
        return not (old.etag and entry.etag and old.etag != entry.etag)

    def _fetch_and_note(self, name: str, entry: Entry) -> None:
        try:
            self._fetch(name, entry)
        except (OSError, StoreError) as error:
            self._tell(f"not copied: {name}: {error}")
        else:
            self._copied[name] = entry

    def _fetch(self, name: str, entry: Entry) -> None:
        now = self._store.head(entry.key)  # its ETag makes the read all of one version
        if now is None:
            return
        file = self._target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        have = file.stat().st_size if file.exists() else 0
        if have > now.size or not self._append(file, have, now):
            # not beside it, where TensorBoard would take it for another log
            fresh = Path(tempfile.mkdtemp(prefix="replaced-")) / file.name
            self._append(fresh, 0, now)
            fresh.replace(file)
            fresh.parent.rmdir()

    def _append(self, file: Path, have: int, entry: Entry) -> bool:
        """Add what ``file`` lacks, as it comes; False: it is not the beginning of the object."""
        start = max(0, have - OVERLAP)
        if start == entry.size:
            file.touch()
            return True
        # closing: `with body` alone would give what is below it, with other errors
        with (
            closing(self._store.open(entry, start, entry.size - start)) as body,
            file.open("ab+") as out,
        ):
            out.seek(start)
            known = out.read()
            if known and read_exactly(body, len(known)) != known:
                return False
            left = entry.size - start - len(known)
            for block in blocks(body, left):
                out.write(block)
                out.flush()
                left -= len(block)
        if left:
            raise StoreError("the connection ended too early; the rest comes with the next look")
        return True

    def _tell(self, words: str) -> None:
        """Once: the same would be said at every look."""
        if words not in self._told and len(self._told) < 100:
            self._told.add(words)
            log.warning("%s", words)


def wanted(names: Iterable[str]) -> list[str]:
    """Of all files, those that TensorBoard reads. Checkpoints and data would fill the disk: they
    are taken only beside a projector's configuration."""
    names = list(names)
    projectors = {PurePosixPath(n).parent for n in names if PurePosixPath(n).name == PROJECTOR}
    return [name for name in names if _is_wanted(PurePosixPath(name), projectors)]


def _is_wanted(path: PurePosixPath, projectors: set[PurePosixPath]) -> bool:
    if "tfevents" in path.name or "tfdbg_events" in path.name:
        return True
    return "plugins" in path.parts[:-1] or any(parent in projectors for parent in path.parents)


def read_exactly(body: Any, count: int) -> bytes:
    """``count`` bytes, fewer only at the end."""
    return b"".join(blocks(body, count))


def blocks(body: Any, count: int) -> Iterator[bytes]:
    """``count`` bytes of ``body`` as they come."""
    while count > 0 and (block := body.read(min(BLOCK, count))):
        count -= len(block)
        yield block


def run(source: Source, target: Path) -> None:
    """Copy for ever; SystemExit where the first look fails."""
    settings = Settings(
        bucket=source.bucket, endpoint_url=source.endpoint_url, region_name=source.region_name
    )
    store = Bucket(Connection(settings))
    mirror = Mirror(store, source.prefix, target, source.max_bytes)
    target.mkdir(parents=True, exist_ok=True)
    try:
        listed = mirror.listing()
    except StoreErrors as error:
        sys.exit(_words(error, source))
    projector = any(PurePosixPath(name).name == PROJECTOR for name in listed)
    print(json.dumps({"projector": projector}), flush=True)
    found: dict[str, Entry] | None = listed
    failed = ""
    while True:
        try:
            mirror.sync(mirror.listing() if found is None else found)
            failed = ""
        except StoreErrors as error:
            failed = _tell_change(failed, _words(error, source))
        except Exception:  # the border of an endless loop: the next look may go well
            log.exception("looking at s3://%s/%s failed", source.bucket, source.prefix)
        found = None
        time.sleep(source.poll_seconds)


def _words(error: Exception, source: Source) -> str:
    where = f"s3://{source.bucket}/{source.prefix}"
    explained = explain(error, where, source.bucket, source.endpoint_url)
    return explained.log_message or str(error)


def _tell_change(before: str, now: str) -> str:
    if now != before:
        log.warning("%s", now)
    return now


def end_with_input() -> None:
    """Wait for the end of standard input, then end at once, in the middle of a download, too."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    """The process."""
    logging.basicConfig(level=logging.WARNING, format="S3: %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--what", required=True)
    options = parser.parse_args()
    threading.Thread(target=end_with_input, daemon=True).start()
    run(Source(**json.loads(options.what)), options.to)


if __name__ == "__main__":
    main()
