"""The home volume at the root and S3 drives beside it, as one tree.

Everything of the home is jupyter-server's AsyncLargeFileManager, by inheritance, so its traits and
what other extensions expect of it (`root_dir`, `_get_os_path`) hold. This module decides whose a
path is, and does what goes from one to the other.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError
from traitlets import Bool, Dict, Unicode, default

from ..s3.places import team_buckets
from . import models, paths, tree
from .checkpoints import RootsCheckpoints
from .files import FilesHandler
from .s3manager import S3ContentsManager, free_copy_path

DRIVE = "s3"
HANDLERS = "gpucloud_labext.contents.handlers"


class GPUCloudContentsManager(AsyncLargeFileManager):
    """Jupyter's files, and the user's buckets as folders `s3` and `s3-<team>`."""

    team_buckets = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Buckets of the user's teams, e.g. {'vision': 'team-vision'}, shown as /s3-vision/. "
        "Default: the same as JSON in GPUCLOUD_S3_TEAM_BUCKETS.",
    ).tag(config=True)
    # S3 has no trash, and JupyterLab has one wording for all: it must not promise one.
    delete_to_trash = Bool(
        False,
        help="Move deleted files of the home to its trash, which fills the same volume. JupyterLab "
        "then promises a trash for S3, too, where deleting is for good.",
    ).tag(config=True)
    always_delete_dir = Bool(True, help="Delete folders that are not empty.").tag(config=True)

    @default("team_buckets")
    def _default_team_buckets(self) -> dict[str, str]:
        return team_buckets()

    @default("checkpoints_class")
    def _checkpoints_class_default(self) -> type:
        return RootsCheckpoints

    @default("files_handler_class")
    def _files_handler_class_default(self) -> type:
        return FilesHandler

    def __init__(self, **kwargs: Any) -> None:
        self.drives: dict[str, S3ContentsManager] = {}
        super().__init__(**kwargs)
        self.drives = self._make_drives()
        for name in self.drives:
            if Path(self._get_os_path(name)).exists():
                self.log.warning("The drive %s hides the folder of that name in the home", name)
        server = self.parent
        if isinstance(server, ServerApp) and HANDLERS not in server.extra_services:
            server.extra_services = [*server.extra_services, HANDLERS]

    def _make_drives(self) -> dict[str, S3ContentsManager]:
        drives = {}
        configured = "bucket" in self.config.get("S3ContentsManager", {})
        if configured or os.environ.get("GPUCLOUD_S3_BUCKET"):
            drives[DRIVE] = S3ContentsManager(parent=self, mount=DRIVE, notary=self.notary)
        for team, bucket in self.team_buckets.items():
            name = f"{DRIVE}-{team}"
            if len(paths.split(name)) != 1:
                raise ValueError(f"Not a team's name: {team!r}")
            drives[name] = S3ContentsManager(
                parent=self, mount=name, bucket=bucket, prefix="", notary=self.notary
            )
        return drives

    def drive(self, path: str) -> S3ContentsManager | None:
        """The drive of an API path; None for the home."""
        first = path.strip("/").split("/", 1)[0]
        return self.drives.get(first)

    # --- what is there ---

    async def is_hidden(self, path: str) -> bool:
        drive = self.drive(path)
        return bool(await (drive.is_hidden(path) if drive else super().is_hidden(path)))

    async def file_exists(self, path: str = "") -> bool:
        drive = self.drive(path)
        return bool(await (drive.file_exists(path) if drive else super().file_exists(path)))

    async def dir_exists(self, path: str) -> bool:
        drive = self.drive(path)
        return bool(await (drive.dir_exists(path) if drive else super().dir_exists(path)))

    def exists(self, path: str) -> bool | Awaitable[bool]:  # type: ignore[override]
        """A bool for the home, as its own methods need; to be awaited for a drive."""
        drive = self.drive(path)
        return drive.exists(path) if drive else bool(super().exists(path))

    async def get_kernel_path(self, path: str, model: Any = None) -> str:
        """Kernels of notebooks in a bucket start in the home: a drive is no folder on the disk."""
        return "" if self.drive(path) else str(await super().get_kernel_path(path, model))

    # --- verbs ---

    async def get(
        self,
        path: str,
        content: bool = True,
        type: str | None = None,
        format: str | None = None,
        require_hash: bool = False,
    ) -> models.Model:
        drive = self.drive(path)
        if drive is not None:
            return await drive.get(path, content, type, format, require_hash)
        model: models.Model = await super().get(path, content, type, format, require_hash)
        if content and not path.strip("/"):
            shown = {entry["name"] for entry in model["content"]}
            # without a question to S3: the home is usable when S3 is not
            model["content"] += [models.of_folder(n) for n in self.drives if n not in shown]
        return model

    async def save(self, model: models.Model, path: str = "") -> models.Model:
        drive = self.drive(path)
        if drive is not None:
            return await drive.save(model, path)
        saved: models.Model = await super().save(model, path)
        return saved

    async def delete_file(self, path: str) -> None:
        drive = self.drive(path)
        if drive is not None:
            await drive.delete_file(path)
        else:
            await super().delete_file(path)

    async def rename_file(self, old_path: str, new_path: str) -> None:
        old, new = self.drive(old_path), self.drive(new_path)
        if old is not None and new is not None:
            await old.move_to(old_path, new, new_path)
        elif old is None and new is None:
            await super().rename_file(old_path, new_path)
        else:
            await self._cross(old_path, new_path, move=True)

    async def copy(self, from_path: str, to_path: str | None = None) -> models.Model:
        old = self.drive(from_path)
        new = old if to_path is None else self.drive(to_path)
        copied: models.Model
        if old is not None and new is not None:
            return await old.copy_to(from_path, new, to_path)
        if old is None and new is None:
            copied = await super().copy(from_path, to_path)
            return copied
        target = await free_copy_path(self, from_path, to_path)
        await self._cross(from_path, target, move=False)
        self.emit(data={"action": "copy", "path": target, "source_path": from_path})
        copied = await self.get(target, content=False)
        return copied

    # --- from one to the other ---

    async def _cross(self, old_path: str, new_path: str, move: bool) -> None:
        """Copy or move a file or folder between the home and a drive."""
        verb = "rename" if move else "copy"
        await self._check_target(new_path)
        new = self.drive(new_path)
        if new is not None:
            key = new._refuse_hidden(new_path, verb)
            source = await self._home_path(old_path, verb, exists=True)
            left = await new.do(old_path, tree.upload, source, tree.Place(new.store, key), move)
        else:
            old = self.drives[paths.split(old_path)[0]]
            key = old._refuse_hidden(old_path, verb)
            target = await self._home_path(new_path, verb, exists=False)
            left = await old.do(old_path, tree.download, tree.Place(old.store, key), target, move)
            if move:
                await old.do(old_path, old.store.keep_folder, paths.parent(key))
        if left:
            raise HTTPError(409, f"{left!r} changed while it was moved; it was copied and is kept.")

    async def _check_target(self, path: str) -> None:
        above = paths.parent(path)
        if not await self.dir_exists(above):
            raise HTTPError(404, f"No such directory: {above!r}")
        if await self.file_exists(path) or await self.dir_exists(path):
            raise HTTPError(409, f"File already exists: {path}")

    async def _home_path(self, path: str, verb: str, exists: bool) -> Path:
        if not path.strip("/"):
            raise HTTPError(400, f"Cannot {verb} the home itself")
        if not self.allow_hidden and (
            await self.is_hidden(path) or paths.name(path).startswith(".")
        ):
            raise HTTPError(400, f"Cannot {verb} hidden file or directory {path!r}")
        found = Path(self._get_os_path(path.strip("/")))
        if exists and not found.exists():
            raise HTTPError(404, f"File or directory does not exist: {path}")
        return found
