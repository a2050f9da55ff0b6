"""Files that the browser sends in chunks: S3 multipart uploads with constant memory.

The object appears when the last chunk has come, complete, or never. An upload that stands still is
aborted; a note of each one lies in the home volume, so that even those of a killed server are.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import hashlib
import io
import itertools
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tornado.web import HTTPError

from .bucket import MIB, Bucket, Entry, StoreError

PART = 8 * MIB  # S3 wants 5 MiB at least and 10,000 parts at most
Run = Callable[..., Awaitable[Any]]


def part_size(number: int) -> int:
    """Grows with the file, so that 10,000 parts are 5 TiB, and 1 GiB still needs 8 MiB only."""
    return min(PART * 2 ** (number // 1000), 512 * MIB)


class Pieces(io.RawIOBase):
    """Bytes that came in pieces, as one file to read: putting them together would hold up the event
    loop for 20 ms a part, whichever thread does it."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._starts = [0, *itertools.accumulate(map(len, pieces))]
        self._at = 0

    def __len__(self) -> int:
        return self._starts[-1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self)}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As much as the piece has in which the place is."""
        if self._at >= len(self):
            return 0
        number = bisect.bisect_right(self._starts, self._at) - 1
        inside = self._at - self._starts[number]
        found = memoryview(self._pieces[number])[inside : inside + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class Upload:
    """One file on its way. Not reusable; end it with `finish` or `abort`."""

    def __init__(self, bucket: Bucket, key: str, content_type: str, run: Run, note: Note) -> None:
        self.bucket = bucket
        self.key = key
        self.next_chunk = 1
        self.size = 0
        self.touched = time.monotonic()
        self._content_type = content_type
        self._run = run
        self._note = note
        self._pieces: list[bytes] = []  # of the next part, which is sent as a whole number of them
        self._waiting = 0  # bytes in them
        self._id: str | None = None
        self._etags: list[str] = []
        self._sending: asyncio.Task[str] | None = None

    async def add(self, data: bytes) -> None:
        self.touched = time.monotonic()
        self.next_chunk += 1
        self.size += len(data)
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= part_size(len(self._etags)):
            await self._send()

    def _take(self) -> Pieces:
        taken, self._pieces, self._waiting = Pieces(self._pieces), [], 0
        return taken

    async def _send(self) -> None:
        """Send a part while the next one is being received; never more than one."""
        data = self._take()
        if self._id is None:
            self._id = await self._run(self.bucket.start_parts, self.key, self._content_type)
            await self._run(self._note.write, self.bucket, self.key, self._id)
        await self._sent()
        number = len(self._etags) + 1
        sending = self._run(self.bucket.put_part, self.key, self._id, number, data)
        self._sending = asyncio.ensure_future(sending)
        await self._run(self._note.touch)

    async def _sent(self) -> None:
        if self._sending is not None:
            task, self._sending = self._sending, None
            self._etags.append(await task)

    async def finish(self) -> Entry:
        if self._id is None:
            whole = self._take()
            await self._run(lambda: self.bucket.put(self.key, whole.read(), self._content_type))
        else:
            if self._pieces:
                await self._send()
            await self._sent()
            await self._run(self.bucket.finish_parts, self.key, self._id, self._etags)
            await self._run(self._note.remove)
        self._take()
        entry: Entry | None = await self._run(self.bucket.head, self.key)
        if entry is None or entry.size != self.size:
            raise StoreError(f"the upload of {self.key!r} did not arrive whole; send it again")
        return entry

    async def abort(self) -> None:
        self._take()
        if self._sending is not None:
            # waited for, not cancelled: a part that arrives after the abort would stay for ever
            await asyncio.gather(self._sending, return_exceptions=True)
            self._sending = None
        if self._id is not None:
            await self._run(self.bucket.abort_parts, self.key, self._id)
            await self._run(self._note.remove)


class Note:
    """The file that tells a later server of an upload."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path: Path | None = None

    def write(self, bucket: Bucket, key: str, upload: str) -> None:
        digest = hashlib.sha256(upload.encode()).hexdigest()[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"{digest}.json"
        text = json.dumps({"bucket": bucket.name, "key": bucket.key(key), "upload": upload})
        self.path.write_text(text)

    def touch(self) -> None:
        if self.path is not None:
            self.path.touch()

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Uploads:
    """The uploads of one drive, by key, and the task that ends those that stand still."""

    def __init__(
        self, bucket: Bucket, run: Run, notes: Path, idle: float, log: logging.Logger
    ) -> None:
        self._bucket = bucket
        self._run = run
        self._notes = notes
        self._idle = idle
        self._log = log
        self._active: dict[str, Upload] = {}
        self._reaper: asyncio.Task[None] | None = None

    def active(self, key: str) -> Upload | None:
        return self._active.get(key)

    async def chunk(self, key: str, number: int, data: bytes, content_type: str) -> Upload:
        """Add chunk ``number`` (1, 2, ... and -1 for the last); the upload it belongs to."""
        if number == 1:
            await self.drop(key)
            note = Note(self._notes)
            upload = Upload(self._bucket, key, content_type, self._run, note)
            self._active[key] = upload
            self.watch()
        else:
            found = self._active.get(key)
            if found is None or (number != found.next_chunk and number != -1):
                raise HTTPError(
                    400,
                    f"The upload of {key!r} was interrupted (chunk {number}). Send it again.",
                    reason="Upload interrupted",
                )
            upload = found
        try:
            await upload.add(data)
        except BaseException:
            await self._failed(key, upload)
            raise
        return upload

    async def finish(self, key: str, upload: Upload) -> Entry:
        try:
            entry = await upload.finish()
        except BaseException:
            await self._failed(key, upload)
            raise
        self._forget(key, upload)
        return entry

    async def drop(self, key: str) -> None:
        """End an upload that will not go on."""
        upload = self._active.pop(key, None)
        if upload is not None:
            await upload.abort()

    async def _failed(self, key: str, upload: Upload) -> None:
        """Abort; where the store does not answer, the note stays for the reaper."""
        self._forget(key, upload)
        try:
            await upload.abort()
        except Exception as error:  # noqa: BLE001 - the first error is the one to tell
            self._log.warning("S3: could not abort the upload of %s yet: %s", key, error)

    def _forget(self, key: str, upload: Upload) -> None:
        if self._active.get(key) is upload:
            del self._active[key]

    # --- those that stand still ---

    def watch(self) -> None:
        """Look after uploads while there are any; called at each start of one and at first use."""
        if self._reaper is None or self._reaper.done():
            self._reaper = asyncio.create_task(self._reap(), name="s3-uploads")

    async def close(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
        for key in list(self._active):
            await self.drop(key)

    async def _reap(self) -> None:
        while await self._reap_once() or self._active:
            await asyncio.sleep(max(self._idle / 4, 0.05))

    async def _reap_once(self) -> bool:
        """Abort what stands still; tells whether notes are left."""
        try:
            for key, upload in list(self._active.items()):
                if time.monotonic() - upload.touched > self._idle:
                    self._log.warning("S3: the upload of %s stands still; aborting it", key)
                    await self.drop(key)
            return bool(await self._run(self._abort_noted))
        except Exception as error:  # noqa: BLE001 - tried again at the next turn
            self._log.warning("S3: could not look after unfinished uploads: %s", error)
            return True

    def _abort_noted(self) -> int:
        """For a worker thread. Age decides, so another server of the same home is left in peace."""
        left = 0
        for path in self._notes.glob("*.json"):
            try:
                note = json.loads(path.read_text())
                if note["bucket"] != self._bucket.name:
                    continue
                if time.time() - path.stat().st_mtime <= self._idle:
                    left += 1
                    continue
                relative = self._bucket.relative(note["key"])
                self._bucket.abort_parts(relative, note["upload"])
                path.unlink(missing_ok=True)
            except (OSError, ValueError, KeyError):
                if os.path.lexists(path):
                    path.unlink(missing_ok=True)
        return left


def decode(model: dict[str, Any]) -> bytes:
    """The bytes of a chunk or a small file."""
    content, form = model["content"], model.get("format")
    if form not in ("text", "base64"):
        raise HTTPError(400, "The format of file contents must be 'text' or 'base64'")
    if not isinstance(content, str):
        raise HTTPError(400, "The content of a file must be a string")
    try:
        return content.encode() if form == "text" else base64.b64decode(content)
    except ValueError as error:
        raise HTTPError(400, f"Not valid {form}: {error}") from error
