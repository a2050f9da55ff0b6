"""Writing to a bucket by the contents API: save, upload, delete, rename, copy.

How S3 and the home volume meet is in manager.py, whole folders are in tree.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

import nbformat
from jupyter_server.services.contents.manager import AsyncContentsManager, copy_pat
from tornado.web import HTTPError

from . import models, paths, tree, uploads
from .bucket import Entry
from .s3drive import S3Drive


class S3ContentsManager(S3Drive):
    """A bucket as a tree of files. Under a GPUCloudContentsManager it is one of its drives."""

    def run_pre_save_hooks(self, model: Any, path: str, **kwargs: Any) -> None:
        super().run_pre_save_hooks(model, path, **kwargs)
        if self.host is not self:
            self.host.run_pre_save_hooks(model, path, **kwargs)

    def _run_post_save_hook(self, model: models.Model, path: str) -> None:
        if self.post_save_hook is None:
            return
        try:
            self.post_save_hook(s3_path=self.key(path), model=model, contents_manager=self)
        except Exception as error:
            self.log.exception("Post-save hook failed on %s", path)
            raise HTTPError(500, f"Saved, but the post-save hook failed: {error}") from error

    def _refuse_hidden(self, path: str, verb: str) -> str:
        """The key of a path that may be changed: not the drive, and hidden only if allowed."""
        key = self.key(path)
        if not key:
            raise HTTPError(400, f"Cannot {verb} the drive {path!r} itself")
        if not self.allow_hidden and paths.is_hidden(paths.split(key)):
            raise HTTPError(400, f"Cannot {verb} hidden file or directory {path!r}")
        return key

    # --- save ---

    async def save(self, model: models.Model, path: str = "") -> models.Model:
        path = path.strip("/")
        kind, chunk = model.get("type"), model.get("chunk")
        if chunk is None or chunk == 1:
            self.run_pre_save_hooks(model=model, path=path)
            kind = model.get("type")
        if kind is None:
            raise HTTPError(400, "No file type provided")
        if kind not in ("file", "notebook", "directory"):
            raise HTTPError(400, f"Unhandled contents type: {kind}")
        if kind != "directory" and "content" not in model:
            raise HTTPError(400, "No file content provided")
        if chunk is not None:
            return await self._save_chunk(model, path, kind, chunk)
        if kind == "directory":
            saved = await self._save_folder(path)
        else:
            saved = await self._save_content(model, path, kind)
        self.emit(data={"action": "save", "path": path})
        return saved

    async def _save_folder(self, path: str) -> models.Model:
        if self.key(path):
            key = self._refuse_hidden(path, "create")
            if await self.file_exists(path):
                raise HTTPError(400, f"Not a directory: {path}")
            if not await self.dir_exists(path):
                await self._check_parent(path)
                await self.ask(path, self.store.make_folder, key)
        return models.of_folder(path)

    async def _save_content(self, model: models.Model, path: str, kind: str) -> models.Model:
        key = await self._writable_key(path)
        message = None
        if kind == "notebook":
            data, signature = await self.ask(path, self._dump_notebook, path, model)
            self._remember_signature(signature, path)
            message = model.get("message")
        else:
            data = await self.ask(path, uploads.decode, model)
        await self.uploads.drop(key)  # an upload of this name would overwrite what is saved now
        await self.ask(path, self.store.put, key, data, models.content_type(path))
        entry = await self.ask(path, self.store.head, key)
        if entry is None:
            raise HTTPError(500, f"{path!r} was saved and vanished; save it again")
        if entry.size == len(data):
            await self._keep_hash(entry, data)
        if kind == "notebook" and not await self.checkpoints.list_checkpoints(path):
            await self.create_checkpoint(path)  # one always exists for notebooks
        saved = models.of_file(path, entry)
        if message:
            saved["message"] = message
        self._run_post_save_hook(saved, path)
        return saved

    async def _writable_key(self, path: str) -> str:
        """The key of a file that may be written here. A key that is also a folder (or below a
        file) is lawful in S3, but hides data, and on the embedded server it is lost."""
        key = self._refuse_hidden(path, "create")
        _, is_folder = await asyncio.gather(self._check_parent(path), self.dir_exists(path))
        if is_folder:
            raise HTTPError(400, f"{path!r} is a directory")
        return key

    async def _check_parent(self, path: str) -> None:
        above = paths.parent(path)
        if not await self.dir_exists(above):
            raise HTTPError(404, f"No such directory: {above!r}")

    def _dump_notebook(self, path: str, model: models.Model) -> tuple[bytes, str | None]:
        """The bytes of a notebook, and its signature if it is to be trusted (in a thread)."""
        try:
            notebook = nbformat.from_dict(model["content"])
            trusted = self.notary.check_cells(notebook)
            signature = self.notary.compute_signature(notebook) if trusted else None
            invalid: dict[str, Any] = {}
            text = nbformat.writes(notebook, capture_validation_error=invalid)
        except Exception as error:
            raise HTTPError(400, f"Not a notebook: {path} {error!r}") from error
        self.validate_notebook_model(model, invalid)
        return f"{text}\n".encode(), signature

    async def _save_chunk(
        self, model: models.Model, path: str, kind: str, chunk: int
    ) -> models.Model:
        if kind != "file":
            raise HTTPError(400, f'File type "{kind}" is not supported for large file transfer')
        key = await self._writable_key(path) if chunk == 1 else self._refuse_hidden(path, "create")
        data = uploads.decode(model)
        try:
            upload = await self.uploads.chunk(key, chunk, data, models.content_type(path))
            if chunk != -1:
                entry = Entry(key, upload.size, "", models.NO_TIME)
                return models.of_file(path, entry) | {"type": "file"}
            entry = await self.uploads.finish(key, upload)
        except Exception as error:
            raise self.worded(error, path) from error
        saved = models.of_file(path, entry)
        self._run_post_save_hook(saved, path)
        self.emit(data={"action": "save", "path": path})
        return saved

    # --- delete, rename, copy ---

    async def delete_file(self, path: str) -> None:
        key = self._refuse_hidden(path, "delete")
        await self.do(path, self._delete, path, key)

    def _delete(self, path: str, key: str) -> None:
        place = tree.Place(self.store, key)
        entries = place.entries()
        if not entries:
            raise HTTPError(404, f"File or directory does not exist: {path}")
        folder = entries[0].key != key
        markers = (f"{key}/", f"{key}/{paths.KEEP}")
        if folder and not self.always_delete_dir and any(e.key not in markers for e in entries):
            raise HTTPError(400, f"Directory {path} not empty")
        self.store.delete(entry.key for entry in entries)
        self.store.keep_folder(paths.parent(key))

    async def rename_file(self, old_path: str, new_path: str) -> None:
        await self.move_to(old_path, self, new_path)

    async def move_to(self, old_path: str, other: S3ContentsManager, new_path: str) -> None:
        """Rename, also into another drive."""
        if old_path.strip("/") == new_path.strip("/"):
            return
        key, new_key = await self._two_places(old_path, other, new_path, "rename")
        source, target = tree.Place(self.store, key), tree.Place(other.store, new_key)
        if await other.dir_exists(paths.parent(new_path)):
            await self.do(old_path, self._moves.move, source, target)
        else:
            raise HTTPError(404, f"No such directory: {paths.parent(new_path)!r}")
        await self.do(old_path, self.store.keep_folder, paths.parent(key))

    async def _two_places(
        self, old_path: str, other: S3ContentsManager, new_path: str, verb: str
    ) -> tuple[str, str]:
        key = self._refuse_hidden(old_path, verb)
        new_key = other._refuse_hidden(new_path, verb)
        if other is self and paths.inside(new_key, key):
            raise HTTPError(400, f"Cannot {verb} {old_path!r} into itself")
        return key, new_key

    async def copy(self, from_path: str, to_path: str | None = None) -> models.Model:
        return await self.copy_to(from_path, self, to_path)

    async def copy_to(
        self, from_path: str, other: S3ContentsManager, to_path: str | None
    ) -> models.Model:
        """Copy a file or folder; the store does it, nothing passes through this server."""
        if not await self.exists(from_path):
            raise HTTPError(404, f"No such file or directory: {from_path}")
        target = await free_copy_path(other.host, from_path, to_path)
        key, new_key = await self._two_places(from_path, other, target, "copy")
        source, place = tree.Place(self.store, key), tree.Place(other.store, new_key)
        await self.do(from_path, tree.copy, source, place)
        self.emit(data={"action": "copy", "path": target, "source_path": from_path})
        return await other.get(target, content=False)


async def free_copy_path(manager: AsyncContentsManager, from_path: str, to_path: str | None) -> str:
    """Where a copy goes, by jupyter-server's rules: a folder gets a free name in it."""
    from_path = from_path.strip("/")
    to_path = paths.parent(from_path) if to_path is None else to_path.strip("/")
    if await manager.dir_exists(to_path):
        name = copy_pat.sub(".", paths.name(from_path))
        name = await manager.increment_filename(name, to_path, insert="-Copy")
        return f"{to_path}/{name}".strip("/")
    above = paths.parent(to_path)
    if not await manager.dir_exists(above):
        raise HTTPError(404, f"No such parent directory: {above} to copy file in")
    if await manager.file_exists(to_path):
        raise HTTPError(409, f"There is already something at {to_path!r}")
    return to_path
