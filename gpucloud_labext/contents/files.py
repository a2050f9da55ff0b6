"""`/files/...`: downloads, streamed in blocks, from the home volume or from S3. No models here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import AuthenticatedFileHandler
from tornado import web
from tornado.iostream import StreamClosedError

from . import models, paths
from .bucket import MIB, Entry

if TYPE_CHECKING:
    from .s3manager import S3ContentsManager

BLOCK = MIB


class FilesHandler(AuthenticatedFileHandler):
    """The home by jupyter-server's own handler; S3 by streaming, with ranges.

    Login, XSRF check and the sandbox of the content security policy are the parent's.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        # A compressed answer would have no length and its ranges would be wrong.
        self.request.headers.pop("Accept-Encoding", None)

    def _drive(self, path: str) -> S3ContentsManager | None:
        from .s3manager import S3ContentsManager

        manager: Any = self.contents_manager
        if isinstance(manager, S3ContentsManager):
            return manager  # alone: everything is in S3, and nothing of the disk is served
        return cast("S3ContentsManager | None", manager.drive(path))

    @web.authenticated
    @authorized
    def head(self, path: str) -> Awaitable[None]:  # type: ignore[override]
        return self._serve(path, include_body=False)

    @web.authenticated
    @authorized
    def get(  # type: ignore[override]
        self, path: str, include_body: bool = True, **kwargs: Any
    ) -> Awaitable[None]:
        return self._serve(path, include_body=include_body)

    async def _serve(self, path: str, include_body: bool) -> None:
        drive = self._drive(path)
        if drive is None:
            # not the parent's `head`: tornado's calls `get`, which is ours
            await ensure_async(AuthenticatedFileHandler.get(self, path, include_body=include_body))
            return
        self.check_xsrf_cookie()
        manager = self.contents_manager
        if not manager.allow_hidden and await ensure_async(manager.is_hidden(path)):
            raise web.HTTPError(404)
        entry = (
            await drive.ask(path, drive.store.head, drive.key(path)) if drive.key(path) else None
        )
        if entry is None:
            raise await self._no_file(drive, path)
        self._describe(path, entry)
        if self._not_changed(entry):
            self.set_status(304)
            return
        start, length = self._range(entry)
        self.set_header("Content-Length", str(length))
        if include_body and length:
            await self._stream(drive, path, entry, start, length)

    async def _no_file(self, drive: S3ContentsManager, path: str) -> web.HTTPError:
        if await drive.dir_exists(path):
            return web.HTTPError(403, f"{path!r} is a folder, not a file")
        return web.HTTPError(404, f"No such file: {path!r}")

    def _describe(self, path: str, entry: Entry) -> None:
        name = paths.name(path)
        self.set_header("Content-Type", models.content_type(name))
        self.set_header("Last-Modified", entry.modified)
        self.set_header("Etag", f'"{entry.etag}"')
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        if name.endswith(".ipynb") or self.get_argument("download", None):
            self.set_attachment_header(name)

    def _not_changed(self, entry: Entry) -> bool:
        wanted = self.request.headers.get("If-None-Match", "")
        etags = [tag.strip().removeprefix("W/").strip('"') for tag in wanted.split(",")]
        return entry.etag in etags or wanted.strip() == "*"

    def _range(self, entry: Entry) -> tuple[int, int]:
        """First byte and number of bytes to send; sets status and Content-Range."""
        header = self.request.headers.get("Range")
        condition = self.request.headers.get("If-Range")
        if header is None or (condition is not None and condition.strip('"') != entry.etag):
            return 0, entry.size
        wanted = parse_range(header, entry.size)
        if wanted is None:
            return 0, entry.size
        start, length = wanted
        if length <= 0:
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{entry.size}")
            return 0, 0
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {start}-{start + length - 1}/{entry.size}")
        return start, length

    async def _stream(
        self, drive: S3ContentsManager, path: str, entry: Entry, start: int, length: int
    ) -> None:
        """A block is read while the last one is sent; memory holds two."""
        body = await drive.ask(path, drive.store.open, entry, start, length)
        reading = asyncio.ensure_future(drive.run(body.read, min(BLOCK, length)))
        try:
            while length > 0:
                block = (await reading)[:length]
                if not block:
                    raise web.HTTPError(502, f"{path!r} ended before its end")
                length -= len(block)
                if length > 0:
                    reading = asyncio.ensure_future(drive.run(body.read, min(BLOCK, length)))
                self.write(block)
                await self.flush()
        except StreamClosedError:
            pass  # the reader went away
        finally:
            await asyncio.gather(reading, return_exceptions=True)
            body.close()

    def compute_etag(self) -> str | None:
        return None  # S3's is set


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and length of a Range header; None where it is to be ignored (several ranges,
    other units, nonsense), a length of 0 where the file has no such bytes."""
    unit, _, value = header.partition("=")
    first, dash, last = (part.strip() for part in value.strip().partition("-"))
    known = unit.strip().lower() == "bytes" and dash and (first or last)
    if not known or not all(part.isascii() and part.isdigit() for part in (first, last) if part):
        return None
    if not first:
        start = max(size - int(last), 0)
        return start, (size - start if int(last) else 0)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    return start, max(end - start + 1, 0)
