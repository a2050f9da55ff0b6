"""Looking into a bucket by the contents API: what is there, models, contents, hashes.

Threads do all waiting; nothing here blocks the event loop. Traits are in traits.py; writing is in
s3manager.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import translate
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.paths import jupyter_data_dir
from jupyter_server.services.contents.manager import AsyncContentsManager
from s3transfer.exceptions import S3DownloadFailedError, S3UploadFailedError
from tornado.web import HTTPError
from traitlets import Unicode, default

from ..s3.failures import StoreErrors
from . import models, paths, tree, uploads
from .bucket import Bucket, Entry, StoreError
from .checkpoints import S3Checkpoints
from .connection import Connection
from .errors import explain
from .files import FilesHandler
from .traits import S3Traits, bucket_name

HASHES_KEPT = 1000


class S3Drive(S3Traits, AsyncContentsManager):
    """A bucket as a tree of files, to look at; S3ContentsManager also writes."""

    #: the folder at which this drive is shown; empty when it is the root
    mount = Unicode("")

    @default("checkpoints_class")
    def _default_checkpoints_class(self) -> type:
        return S3Checkpoints

    @default("files_handler_class")
    def _default_files_handler_class(self) -> type:
        return FilesHandler

    @default("files_handler_params")
    def _default_files_handler_params(self) -> dict[str, Any]:
        # nothing on the disk is served: see FilesHandler
        return {"path": os.devnull}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.init_s3_hook is not None:
            self.init_s3_hook(self)
        self.bucket = bucket_name(self.bucket)
        self.store = Bucket(Connection(self.settings()))
        self._quick = ThreadPoolExecutor(self.threads, f"s3-{self.mount or 'root'}")
        self._bulk = ThreadPoolExecutor(self.threads, f"s3-{self.mount or 'root'}-folders")
        self._moves = tree.Moves()
        self._hashes: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        globs = "|".join(translate(glob) for glob in self.hide_globs)
        self._hidden_name = re.compile(globs or r"(?!)")
        self.uploads = uploads.Uploads(
            self.store,
            self.run,
            Path(jupyter_data_dir(), "gpucloud", "uploads"),
            self.upload_idle_seconds,
            self.log,
        )
        self._watched = False

    # --- threads, and errors in words ---

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a blocking function of the store in a thread; its errors come out as they are."""
        if not self._watched:
            self._watched = True
            self.uploads.watch()  # those of an earlier server of this home
        return await asyncio.get_running_loop().run_in_executor(self._quick, function, *args)

    async def ask(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """`run`, with errors in words for the person who asked for path ``what``."""
        try:
            return await self.run(function, *args)
        except Exception as error:
            raise self.worded(error, what) from error

    async def do(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """`ask` for what takes long: it never keeps a listing waiting."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._bulk, function, *args)
        except Exception as error:
            raise self.worded(error, what) from error

    def worded(self, error: Exception, what: str) -> HTTPError:
        if isinstance(error, HTTPError):
            return error
        cause = error.__cause__ or error.__context__
        if isinstance(error, S3UploadFailedError | S3DownloadFailedError) and isinstance(
            cause, Exception
        ):
            error = cause
        if isinstance(error, StoreError):
            return HTTPError(500, str(error), reason="S3 failed")
        if not isinstance(error, StoreErrors):
            self.log.error("Unexpected error at %r", what, exc_info=error)
        return explain(error, what, self.bucket, self.endpoint_url)

    # --- paths ---

    def key(self, path: str) -> str:
        """The key of an API path, "" for the drive itself."""
        parts = paths.split(path)
        if self.mount:
            parts = parts[1:]
        return "/".join(parts)

    def path(self, key: str) -> str:
        return f"{self.mount}/{key}".strip("/")

    @property
    def host(self) -> AsyncContentsManager:
        """The manager that people configured: the one whose drive this is, or this one."""
        parent = self.parent
        if self.mount and isinstance(parent, AsyncContentsManager):
            return parent
        return self

    # --- what is there ---

    async def is_hidden(self, path: str) -> bool:
        return paths.is_hidden(paths.split(path))

    async def file_exists(self, path: str = "") -> bool:
        key = self.key(path)
        if not key:
            return False
        upload = self.uploads.active(key)
        if upload is not None and upload.next_chunk > 2:
            return False  # asked before every chunk; the answer changes nothing
        return await self.ask(path, self.store.head, key) is not None

    async def dir_exists(self, path: str) -> bool:
        key = self.key(path)
        # The drive is there also when S3 is not: what is in it tells.
        return not key or bool(await self.ask(path, self.store.any_under, key))

    async def exists(self, path: str) -> bool:
        return await self.file_exists(path) or await self.dir_exists(path)

    # --- get ---

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,
        format: str | None = None,
        require_hash: bool = False,
    ) -> models.Model:
        path = path.strip("/")
        key = self.key(path)
        entry = None
        if key and type != "directory":
            entry = await self.ask(path, self.store.head, key)
        if entry is None:
            model = await self._get_folder(path, key, type, content)
        elif type == "notebook" or (type is None and path.endswith(".ipynb")):
            model = await self._get_notebook(path, entry, content, require_hash)
        else:
            model = await self._get_file(path, entry, content, format, require_hash)
        self.emit(data={"action": "get", "path": path})
        return model

    async def _get_folder(
        self, path: str, key: str, type: str | None, content: bool
    ) -> models.Model:
        model = models.of_folder(path)
        if content and type in (None, "directory"):
            found = await self.ask(path, self._list, path, key)
        elif not key:
            found = []
        else:
            found = [] if await self.ask(path, self.store.any_under, key) else None
        if found is None:
            if type == "directory" and await self.file_exists(path):
                raise HTTPError(400, f"{path} is not a directory", reason="bad type")
            raise HTTPError(404, f"No such file or directory: {path}")
        if type not in (None, "directory"):
            raise HTTPError(400, f"{path} is a directory, not a {type}", reason="bad type")
        if content:
            model.update(content=found, format="json")
        return model

    def _list(self, path: str, key: str) -> list[models.Model] | None:
        """The models of a folder's children (in a thread); None where there is no folder."""
        folders, objects = self.store.children(key)
        if key and not folders and not objects:
            return None
        base, cut = (f"{path}/" if path else ""), (len(key) + 1 if key else 0)
        shown = [models.of_folder(base + name) for name in folders if self._listed(name)]
        for entry in objects:
            if self._listed(entry.key[cut:]):
                shown.append(models.of_file(base + entry.key[cut:], entry))
        return shown

    def _listed(self, name: str) -> bool:
        """Not markers (""), hidden names, and names that no path can have."""
        if not name or (name[0] == "." and (name in (".", "..") or not self.allow_hidden)):
            return False
        return not self._hidden_name.match(name) and "\0" not in name

    async def _read(self, path: str, entry: Entry) -> tuple[Entry, bytes]:
        if self.max_open_mb and entry.size > self.max_open_mb * 2**20:
            size = f"{entry.size / 2**20:.0f} MiB"
            raise HTTPError(413, f"{path!r} is too large to open ({size}). Download it instead.")
        found: tuple[Entry, bytes] = await self.ask(path, self.store.read, entry.key)
        return found

    async def _get_file(
        self, path: str, entry: Entry, content: bool, format: str | None, require_hash: bool
    ) -> models.Model:
        model = models.of_file(path, entry)
        model.update(type="file", mimetype=models.mimetype(path))
        if content:
            entry, data = await self._read(path, entry)
            text, form = await self.ask(path, _as_text, path, data, format)
            model.update(content=text, format=form, size=entry.size)
            model["last_modified"] = model["created"] = entry.modified
            if model["mimetype"] is None:
                plain = form == "text"
                model["mimetype"] = "text/plain" if plain else "application/octet-stream"
            if require_hash:
                await self._keep_hash(entry, data)
        if require_hash:
            model.update(await self._hash(path, entry))
        return model

    async def _get_notebook(
        self, path: str, entry: Entry, content: bool, require_hash: bool
    ) -> models.Model:
        model = models.of_file(path, entry)
        model.update(type="notebook", mimetype=None)
        if content:
            entry, data = await self._read(path, entry)
            parsed = await self.ask(path, self._parse_notebook, path, data)
            self.notary.mark_cells(parsed["content"], self._trusted(parsed.pop("signature"), path))
            model.update(parsed, size=entry.size)
            model["last_modified"] = model["created"] = entry.modified
            if require_hash:
                await self._keep_hash(entry, data)
        if require_hash:
            model.update(await self._hash(path, entry))
        return model

    def _parse_notebook(self, path: str, data: bytes) -> models.Model:
        invalid: dict[str, Any] = {}
        try:
            notebook = nbformat.reads(data.decode(), 4, capture_validation_error=invalid)
        except Exception as error:
            raise HTTPError(400, f"Unreadable Notebook: {path} {error!r}") from error
        signature = self.notary.compute_signature(notebook) if notebook.nbformat >= 3 else None
        model = {"content": notebook, "format": "json", "signature": signature}
        self.validate_notebook_model(model, invalid)
        return model

    # Signatures are computed in a thread, the base class's way of doing it all would stop the loop
    # for big notebooks; their SQLite database is for the loop's thread only.

    def _trusted(self, signature: str | None, path: str) -> bool:
        notary = self.notary
        known = signature and notary.store.check_signature(signature, notary.algorithm)
        if not known:
            self.log.warning("Notebook %s is not trusted", path)
        return bool(known)

    def _remember_signature(self, signature: str | None, path: str) -> None:
        if signature is None:
            self.log.warning("Notebook %s is not trusted", path)
            return
        for last in (False, True):
            try:
                self.notary.store.store_signature(signature, self.notary.algorithm)
                return
            except Exception:
                if last:
                    raise
                # as the base class does: a new store takes the place of a broken one
                self.log.warning("Recreating the store of notebook signatures", exc_info=True)
                self.notary.store = self.notary.store_factory()

    # --- hashes: computed once for each state of an object ---

    async def _hash(self, path: str, entry: Entry) -> models.Model:
        known = self._hashes.get(self._hash_key(entry))
        if known is None:
            known = await self.do(path, self._hash_object, entry)
            self._remember_hash(entry, known)
        return {"hash": known, "hash_algorithm": self.hash_algorithm}

    async def _keep_hash(self, entry: Entry, data: bytes) -> None:
        self._remember_hash(entry, await self.run(models.digest, data, self.hash_algorithm))

    def _hash_key(self, entry: Entry) -> tuple[str, str, str]:
        return entry.key, f"{entry.etag} {entry.size}", entry.modified.isoformat()

    def _remember_hash(self, entry: Entry, value: str) -> None:
        self._hashes[self._hash_key(entry)] = value
        while len(self._hashes) > HASHES_KEPT:
            self._hashes.popitem(last=False)

    def _hash_object(self, entry: Entry) -> str:
        sums = hashlib.new(self.hash_algorithm)
        with self.store.open(entry, 0, entry.size) as body:
            while block := body.read(2**20):
                sums.update(block)
        return sums.hexdigest()


def _as_text(path: str, data: bytes, format: str | None) -> tuple[str, str]:
    if format in (None, "text"):
        try:
            return data.decode(), "text"
        except UnicodeError as error:
            if format == "text":
                raise HTTPError(400, f"{path} is not UTF-8 encoded", reason="bad format") from error
    return uploads.base64.encodebytes(data).decode("ascii"), "base64"
