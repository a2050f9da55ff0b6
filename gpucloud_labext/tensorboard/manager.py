"""The TensorBoards of one Jupyter server: one for each log directory, and not too many.

It knows nothing of HTTP. Everything runs in the server's event loop; between looking for a
TensorBoard and noting a new one nothing is awaited, so two requests at once start one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jupyter_server.utils import url_path_join
from traitlets import Bool, Float, Int, Unicode, validate
from traitlets.config import LoggingConfigurable

from ..errors import LabError
from ..s3.places import drives
from . import logdirs
from .instance import FAILED, STARTING, Instance, Settings

# of a Unix socket's address; the rest of the path is an id and a name
MAX_FOLDER_CHARS = 70
# Failed ones are kept, so that their last lines can be read, until there are this many.
KEEP_FAILED = 5


class TensorBoards(LoggingConfigurable):
    """Starts, finds, lists and ends them."""

    max_running = Int(
        8,
        min=0,
        help="TensorBoards at a time; each takes about 120 MB of memory. 0: none may be started.",
    ).tag(config=True)
    idle_seconds = Float(
        3600.0,
        min=0,
        help="Seconds after which a TensorBoard that nobody looks at is stopped; opening it again "
        "takes seconds. 0: never.",
    ).tag(config=True)
    start_timeout = Float(
        120.0, help="Seconds that one may take to answer, e.g. where many start at once."
    ).tag(config=True)
    reload_seconds = Int(
        5, min=1, help="Seconds between two looks of a TensorBoard at its log directory."
    ).tag(config=True)
    s3_poll_seconds = Float(
        10.0, help="Seconds between two listings of a log directory on S3."
    ).tag(config=True)
    s3_cache_mib = Int(
        20 * 1024,
        help="MiB of event files that one TensorBoard may copy from S3 to the temporary folder of "
        "this server; the newest are taken. The copies go with the TensorBoard.",
    ).tag(config=True)
    samples_per_plugin = Unicode(
        "",
        help="What TensorBoard's flag of that name says, e.g. 'images=100,scalars=0' for all "
        "scalars. Empty: TensorBoard's own choice.",
    ).tag(config=True)
    private_loopback = Bool(
        False,
        help="Nobody else uses this machine's loopback, as in a Kubernetes pod. Where a process "
        "may not have a network of its own, TensorBoard's fast reader (which listens on a loopback "
        "port without a password) is only used if this says so; without it, long logs take "
        "minutes to appear.",
    ).tag(config=True)

    @validate("start_timeout", "s3_poll_seconds")
    def _positive(self, proposal: Any) -> float:
        if proposal["value"] <= 0:
            raise ValueError(f"TensorBoards.{proposal['trait'].name} must be more than 0 seconds")
        return float(proposal["value"])

    def __init__(self, home: Path, base_url: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._home = home
        self._url = url_path_join(base_url, "gpucloud/tensorboard/")
        self._instances: dict[str, Instance] = {}
        self._folder: Path | None = None
        self._culling: asyncio.Task[None] | None = None
        self._closed = False

    # --- what there is ---

    def get(self, id: str) -> Instance:
        """Raises LabError (404)."""
        found = self._instances.get(id)
        if found is None:
            raise LabError(
                404,
                "no_such_tensorboard",
                "There is no such TensorBoard. It was stopped, or nobody looked at it for long; "
                "open it again from its log directory.",
            )
        return found

    async def models(self, instances: Iterable[Instance] | None = None) -> list[dict[str, Any]]:
        """As the API tells them; all of them, the newest last."""
        chosen = list(self._instances.values() if instances is None else instances)
        memory = await asyncio.to_thread(lambda: [i.memory_bytes() for i in chosen])
        return [self._model(i, used) for i, used in zip(chosen, memory, strict=True)]

    def _model(self, instance: Instance, memory: int) -> dict[str, Any]:
        model = {
            "id": instance.id,
            "logdir": instance.logdir.text,
            "url": f"{self._url}{instance.id}/",
            "state": instance.state,
            "started": instance.started.isoformat(timespec="seconds"),
            "last_used": instance.last_used.isoformat(timespec="seconds"),
            "memory_bytes": memory,
        }
        if instance.state == FAILED:
            model |= {"reason": instance.reason, "log": instance.log()}
        return model

    # --- start and end ---

    async def open(self, text: str) -> tuple[Instance, bool]:
        """The TensorBoard of the log directory ``text``, and whether it is new. A new one is
        still starting. Raises LabError (4xx)."""
        logdir = await asyncio.to_thread(logdirs.find, text, self._home, drives())
        for instance in self._instances.values():
            if instance.logdir == logdir and instance.state != FAILED:
                instance.touch()
                return instance, False
        self._check_room()
        self._forget_failed(logdir)
        instance = Instance(logdir, self._own_folder(), self._settings())
        self._instances[instance.id] = instance
        self.log.info("TensorBoard %s starts for %s", instance.id, logdir.text)
        if self._culling is None:
            self._culling = asyncio.create_task(self._cull(), name="idle TensorBoards")
        return instance, True

    async def stop(self, id: str) -> None:
        """Raises LabError (404)."""
        instance = self.get(id)
        del self._instances[id]
        await instance.stop()
        self.log.info("TensorBoard %s of %s is stopped", id, instance.logdir.text)

    async def close(self) -> None:
        """End all; there will be no new ones."""
        self._closed = True
        if self._culling is not None:
            self._culling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._culling
        instances = list(self._instances.values())
        self._instances.clear()
        await asyncio.gather(*(instance.stop() for instance in instances))
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _check_room(self) -> None:
        if self._closed:
            raise LabError(503, "stopping", "This server is being stopped.")
        running = [i for i in self._instances.values() if i.state != FAILED]
        if len(running) >= self.max_running:
            raise LabError(
                409,
                "too_many_tensorboards",
                f"{len(running)} TensorBoards are running and {self.max_running} are allowed. "
                "Stop one that you no longer need.",
                running=[i.logdir.text for i in running],
                limit=self.max_running,
            )

    def _forget_failed(self, logdir: logdirs.LogDir) -> None:
        """Those of the same directory, which is tried anew, and the oldest."""
        failed = [i for i in self._instances.values() if i.state == FAILED]
        old = failed[: max(0, len(failed) - KEEP_FAILED + 1)]
        for instance in failed:
            if instance.logdir == logdir or instance in old:
                del self._instances[instance.id]

    def _settings(self) -> Settings:
        return Settings(
            start_timeout=self.start_timeout,
            reload_seconds=self.reload_seconds,
            poll_seconds=self.s3_poll_seconds,
            max_bytes=self.s3_cache_mib << 20,
            samples_per_plugin=self.samples_per_plugin,
            private_loopback=self.private_loopback,
        )

    def _own_folder(self) -> Path:
        """Sockets and copies are in a folder that only this user may enter, of no known name."""
        if self._folder is None or not self._folder.is_dir():
            parent = tempfile.gettempdir()
            if len(os.fsencode(parent)) > MAX_FOLDER_CHARS:
                parent = "/tmp"  # noqa: S108 - mkdtemp makes a name nobody knows, mode 0700
            self._folder = Path(tempfile.mkdtemp(prefix="gpucloud-tb-", dir=parent))
        return self._folder

    async def _cull(self) -> None:
        """Stop what nobody looks at."""
        while True:
            await asyncio.sleep(min(30.0, self.idle_seconds / 4 or 30.0))
            if not self.idle_seconds:
                continue
            for instance in list(self._instances.values()):
                if instance.state != STARTING and instance.idle_seconds > self.idle_seconds:
                    with contextlib.suppress(LabError):  # stopped meanwhile
                        await self.stop(instance.id)
