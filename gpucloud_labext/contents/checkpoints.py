"""Checkpoints of files in a bucket: objects of the same bucket, copied by the store.

`<dir>/<name>` has its checkpoint at `.gpucloud/checkpoints/<dir>/.checkpoint/<name>`: out of the
way of what reads whole data folders, and never a key that another checkpoint needs as a folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jupyter_server.services.contents.checkpoints import AsyncCheckpoints
from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from tornado.web import HTTPError

from . import paths, tree
from .bucket import Entry

if TYPE_CHECKING:
    from .manager import GPUCloudContentsManager
    from .s3manager import S3ContentsManager

ROOT = ".gpucloud/checkpoints"
ID = "checkpoint"  # one for each file, as in a home folder


class S3Checkpoints(AsyncCheckpoints):
    """For an S3ContentsManager, which is the parent."""

    @property
    def manager(self) -> S3ContentsManager:
        return cast("S3ContentsManager", self.parent)

    def place(self, path: str) -> tree.Place:
        """Where the checkpoint of a file is."""
        key = self.manager.key(path)
        folder = f"{ROOT}/{paths.parent(key)}".rstrip("/")
        return tree.Place(self.manager.store, f"{folder}/.checkpoint/{paths.name(key)}")

    def below(self, path: str) -> tree.Place:
        """Where the checkpoints of all files in a folder are."""
        return tree.Place(self.manager.store, f"{ROOT}/{self.manager.key(path)}")

    async def _find(self, checkpoint_id: str, path: str) -> Entry:
        place = self.place(path)
        entry: Entry | None = None
        if checkpoint_id == ID:
            entry = await self.manager.ask(path, place.bucket.head, place.key)
        if entry is None:
            raise HTTPError(404, f"Checkpoint does not exist: {path}@{checkpoint_id}")
        return entry

    async def create_checkpoint(self, contents_mgr: Any, path: str) -> dict[str, Any]:
        store, place = self.manager.store, self.place(path)
        entry = await self.manager.ask(path, store.head, self.manager.key(path))
        if entry is None:
            raise HTTPError(404, f"No such file: {path!r}")
        await self.manager.ask(path, store.copy, store, entry, place.key)
        return _model(await self._find(ID, path))

    async def restore_checkpoint(self, contents_mgr: Any, checkpoint_id: str, path: str) -> None:
        entry = await self._find(checkpoint_id, path)
        store = self.manager.store
        await self.manager.ask(path, store.copy, store, entry, self.manager.key(path))

    async def delete_checkpoint(self, checkpoint_id: str, path: str) -> None:
        entry = await self._find(checkpoint_id, path)
        await self.manager.ask(path, self.manager.store.delete, [entry.key])

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        place = self.place(path)
        entry = await self.manager.ask(path, place.bucket.head, place.key)
        return [] if entry is None else [_model(entry)]

    async def rename_checkpoint(self, checkpoint_id: str, old_path: str, new_path: str) -> None:
        await self._find(checkpoint_id, old_path)
        await self.rename_all_checkpoints(old_path, new_path)

    async def rename_all_checkpoints(self, old_path: str, new_path: str) -> None:
        await self.move_all(old_path, self, new_path)

    async def move_all(self, old_path: str, other: S3Checkpoints, new_path: str) -> None:
        """The file's checkpoint, or those of a whole folder; also into another drive."""
        for source, target in (
            (self.place(old_path), other.place(new_path)),
            (self.below(old_path), other.below(new_path)),
        ):
            try:
                await self.manager.do(old_path, _replace, source, target)
            except HTTPError as error:  # the files are moved; only their checkpoints are not
                self.log.warning("Checkpoints of %s were not moved: %s", old_path, error)

    async def delete_all_checkpoints(self, path: str) -> None:
        for place in (self.place(path), self.below(path)):
            try:
                await self.manager.do(path, _remove, place)
            except HTTPError as error:
                self.log.warning("Checkpoints of %s were not deleted: %s", path, error)


def _model(entry: Entry) -> dict[str, Any]:
    return {"id": ID, "last_modified": entry.modified}


def _replace(source: tree.Place, target: tree.Place) -> None:
    _remove(target)
    if source.entries():
        tree.Moves().move(source, target)


def _remove(place: tree.Place) -> None:
    place.bucket.delete(entry.key for entry in place.entries())


class RootsCheckpoints(AsyncFileCheckpoints):
    """Those of a GPUCloudContentsManager: in the home's folders, or in the drive of the path."""

    @property
    def manager(self) -> GPUCloudContentsManager:
        return cast("GPUCloudContentsManager", self.parent)

    def _of(self, path: str) -> S3Checkpoints | None:
        drive = self.manager.drive(path)
        return None if drive is None else cast(S3Checkpoints, drive.checkpoints)

    async def create_checkpoint(self, contents_mgr: Any, path: str) -> Any:
        if (drive := self._of(path)) is not None:
            return await drive.create_checkpoint(contents_mgr, path)
        return await super().create_checkpoint(contents_mgr, path)

    async def restore_checkpoint(self, contents_mgr: Any, checkpoint_id: str, path: str) -> None:
        if (drive := self._of(path)) is not None:
            await drive.restore_checkpoint(contents_mgr, checkpoint_id, path)
        else:
            await super().restore_checkpoint(contents_mgr, checkpoint_id, path)

    async def delete_checkpoint(self, checkpoint_id: str, path: str) -> None:
        if (drive := self._of(path)) is not None:
            await drive.delete_checkpoint(checkpoint_id, path)
        else:
            await super().delete_checkpoint(checkpoint_id, path)

    async def list_checkpoints(self, path: str) -> Any:
        if (drive := self._of(path)) is not None:
            return await drive.list_checkpoints(path)
        return await super().list_checkpoints(path)

    async def delete_all_checkpoints(self, path: str) -> None:
        if (drive := self._of(path)) is not None:
            await drive.delete_all_checkpoints(path)
        else:
            await super().delete_all_checkpoints(path)

    async def rename_all_checkpoints(self, old_path: str, new_path: str) -> None:
        old, new = self._of(old_path), self._of(new_path)
        if old is not None and new is not None:
            await old.move_all(old_path, new, new_path)
        elif old is None and new is None:
            await super().rename_all_checkpoints(old_path, new_path)
        else:
            await self._cross(old, old_path, new, new_path)

    async def _cross(
        self, old: S3Checkpoints | None, old_path: str, new: S3Checkpoints | None, new_path: str
    ) -> None:
        """A file's checkpoint goes with it between home and bucket. (A folder of the home takes
        its checkpoints along as files; those of a bucket's folder end with it.)"""
        if not await self.list_checkpoints(old_path):
            if old is not None:
                await old.delete_all_checkpoints(old_path)
            return
        try:
            if old is None and new is not None:
                local, place = Path(self.checkpoint_path(ID, old_path)), new.place(new_path)
                await new.manager.do(old_path, _upload, local, place)
            elif old is not None:
                local, place = Path(self.checkpoint_path(ID, new_path)), old.place(old_path)
                await old.manager.do(old_path, _download, place, local)
        except HTTPError as error:
            self.log.warning("The checkpoint of %s was not moved: %s", old_path, error)


def _upload(local: Path, place: tree.Place) -> None:
    _remove(place)
    tree.upload(local, place, move=True)


def _download(place: tree.Place, local: Path) -> None:
    local.unlink(missing_ok=True)
    tree.download(place, local, move=True)
