"""Folders of a replica and their copies in the bucket: checkpoints both ways, TensorBoard logs up.

A restart must never find half of a checkpoint. TensorFlow writes the data files first and the file
`checkpoint`, which names the newest, last; so does the mirror, in both directions, and it deletes
only what the `checkpoint` in the bucket no longer names. Other files are sent once they have been
left alone for a moment, each as one object: whole or not at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ..jobs.store import THREADS, Entry, Store, is_missing, words
from ..s3.failures import StoreErrors
from ..s3.parallel import for_each

log = logging.getLogger(__name__)

INDEX = "checkpoint"  # TensorFlow's name for the file that names the newest
_QUIET = 1.0  # seconds without a change before a file counts as written
_FRESH = ".part"
_TEMPORARY = re.compile(r"_temp$|\.tmp|\.tempstate|\.part$")
# TensorFlow gives these names to what is whole
_WHOLE = re.compile(r"\.(index|data-[0-9]{5}-of-[0-9]{5})$")
Stamp = tuple[int, int]  # size and modification time in nanoseconds


class Unsettled(OSError):
    """What was seen is no consistent state: it is being written. Try again."""


class Mirror:
    """``folder`` and the objects below ``prefix`` (ends with a slash).

    ``grows``: files are logs, of which a beginning is of use; what is deleted here stays there.
    """

    def __init__(
        self, store: Store, prefix: str, folder: Path, every: float, grows: bool = False
    ) -> None:
        self.folder = folder
        self._store = store
        self._prefix = prefix
        self._every = every
        self._grows = grows
        self._sent: dict[str, Stamp] = {}
        self._there: set[str] = set()  # in the bucket, whatever became of its file while it went
        self._fetched: dict[str, tuple[int, datetime]] = {}
        # one direction at a time: a folder that is being filled must not look like a deleted one
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    # --- up ---

    async def keep_up(self) -> None:
        """Send what is new, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await asyncio.to_thread(self.up)

    def up(self, final: bool = False) -> bool:
        """Send what is new; False if not all could be sent.

        ``final``: nobody writes any more, and who did was not interrupted.
        """
        for _ in range(3):
            try:
                with self._lock:
                    self._up(final)
                return True
            except Unsettled:
                continue
            except StoreErrors as error:
                log.warning("%s: %s", self._prefix, words(error))
                return False
        return False

    def _up(self, final: bool) -> None:
        indexes = self._indexes()
        files = dict(self._files())
        if self._indexes() != indexes:
            raise Unsettled  # what the first ones name may be gone already
        quiet = time.time_ns() - int(_QUIET * 1e9)
        changed = {name: stamp for name, stamp in files.items() if stamp != self._sent.get(name)}
        todo = [
            name
            for name, stamp in changed.items()
            if name not in indexes
            and (self._grows or final or _WHOLE.search(name) or stamp[1] < quiet)
        ]
        for_each(lambda name: self._send(name, files[name]), todo, THREADS)
        if not self._grows and any(self._sent.get(name) != files[name] for name in todo):
            raise Unsettled
        for name in indexes.keys() & changed.keys():
            self._store.put(self._prefix + name, indexes[name])
            self._sent[name] = files[name]
            self._there.add(name)
        gone = [] if self._grows else [name for name in self._there if name not in files]
        self._store.delete([self._prefix + name for name in gone])
        self._there.difference_update(gone)
        for name in gone:
            self._sent.pop(name, None)

    def _send(self, name: str, stamp: Stamp) -> None:
        path = self.folder / name
        self._there.add(name)
        try:
            self._store.put_file(self._prefix + name, path)
            if _stamp(path.stat()) == stamp:
                self._sent[name] = stamp
        except FileNotFoundError:
            raise Unsettled from None

    def _indexes(self) -> dict[str, bytes]:
        """The `checkpoint` files in the folder and below, with what they say."""
        found = {}
        for path in self.folder.rglob(INDEX):
            try:
                found[path.relative_to(self.folder).as_posix()] = path.read_bytes()
            except OSError:
                continue
        return found

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        for place, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not _TEMPORARY.search(name)]
            for name in names:
                path = Path(place, name)
                if _TEMPORARY.search(name) or path.is_symlink():
                    continue
                try:
                    seen = path.stat()
                except OSError:
                    continue
                yield path.relative_to(self.folder).as_posix(), _stamp(seen)

    # --- down ---

    async def keep_down(self) -> None:
        """Fetch what is new, until cancelled: for an evaluator, which reads what others write."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await asyncio.to_thread(self.down)
            except StoreErrors as error:
                log.warning("%s: %s", self._prefix, words(error))

    def reset(self) -> int:
        """Begin with what the bucket has, and nothing else; how many files that is.

        Raises StoreErrors.
        """
        with self._lock:
            # nothing that is not here was deleted here, should the store fail half-way
            self._sent, self._there, self._fetched = {}, set(), {}
            shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            count = self._down_settled()
            self._sent = dict(self._files())  # it came from there
            self._there = set(self._sent)
            return count

    def down(self) -> int:
        """Fetch what is new; how many files the bucket has. Raises StoreErrors."""
        with self._lock:
            return self._down_settled()

    def _down_settled(self) -> int:
        for _ in range(4):
            try:
                return self._down()
            except Unsettled:
                continue
        return self._down()

    def _down(self) -> int:
        # what an index names was there when it was read, and may be gone when others are fetched
        indexes = self._indexes_there()
        there = {name: e for e in self._store.entries(self._prefix) if (name := self._name(e))}
        if there.keys() & {n for n in there if Path(n).name == INDEX} != indexes.keys():
            raise Unsettled
        todo = [
            entry
            for name, entry in there.items()
            if name not in indexes and self._fetched.get(name) != (entry.size, entry.modified)
        ]
        for_each(self._fetch, todo, THREADS)
        if self._indexes_there() != indexes:
            raise Unsettled
        for name, data in indexes.items():
            _replace(self.folder / name, data)
        for name in [name for name in self._fetched if name not in there]:
            (self.folder / name).unlink(missing_ok=True)
            del self._fetched[name]
        return len(there)

    def _indexes_there(self) -> dict[str, bytes]:
        names = [name for e in self._store.entries(self._prefix) if (name := self._name(e))]
        found = {n: self._store.get(self._prefix + n) for n in names if Path(n).name == INDEX}
        return {name: data for name, data in found.items() if data is not None}

    def _fetch(self, entry: Entry) -> None:
        name = self._name(entry)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + _FRESH)
        try:
            self._store.get_file(entry.key, fresh)
        except StoreErrors as error:
            fresh.unlink(missing_ok=True)
            if is_missing(error):
                raise Unsettled from error
            raise
        fresh.replace(path)
        self._fetched[name] = (entry.size, entry.modified)

    def _name(self, entry: Entry) -> str:
        """Its path below the folder; empty for a key that is none."""
        name = entry.key.removeprefix(self._prefix)
        return "" if any(part in ("", ".", "..") for part in name.split("/")) else name


def _stamp(seen: os.stat_result) -> Stamp:
    return seen.st_size, seen.st_mtime_ns


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + _FRESH)
    fresh.write_bytes(data)
    fresh.replace(path)
