"""Whether this server works, and whether somebody is there: what stopping idle servers may go by.

Looked at every half minute: kernels that run something (also silently), terminals with a running
command, and the load of this pod's GPUs. Each such look counts as activity of jupyter-server, whose
`last_activity` is what the server reports to the hub; requests that an open page repeats by itself
do not count (see `presence`). The hub knows a second number, the last traffic that its proxy saw,
which any open page renews: who stops idle servers should ask `GET api/activity`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from jupyter_core.utils import ensure_async

from .gpus import Reader
from .presence import Presence

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

log = logging.getLogger(__name__)
# jupyter-server counts every setting of such a name (ServerWebApplication.last_activity)
WORK = "gpucloud_work_last_activity"
# A training that waits for its data now and then has no load at some moments.
GPU_MEMORY_SECONDS = 60.0
_SHELLS = "ash bash csh dash fish ksh login screen sh su sudo tcsh tmux zsh".split()  # noqa: SIM905
SHELLS = frozenset((*_SHELLS, "tmux: client", "tmux: server"))  # tmux renames its processes


@dataclass(frozen=True)
class Kernel:
    """A kernel, and what it is called by people: the notebook that it runs."""

    id: str
    name: str
    path: str
    state: str
    last_activity: str

    @property
    def busy(self) -> bool:
        return self.state == "busy"

    def as_data(self) -> dict[str, Any]:
        return {**self.__dict__, "busy": self.busy}


@dataclass(frozen=True)
class Terminal:
    """A terminal: the commands that run in it, and when somebody typed in it."""

    name: str
    commands: list[str]
    last_input: datetime | None

    @property
    def busy(self) -> bool:
        return bool(self.commands)

    def as_data(self) -> dict[str, Any]:
        typed = rfc3339(self.last_input)
        return {
            "name": self.name,
            "busy": self.busy,
            "commands": self.commands,
            "last_input": typed,
        }


@dataclass(frozen=True)
class Look:
    """What was found at one moment; ``reasons`` says in words what work there was."""

    at: datetime
    kernels: list[Kernel] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)
    gpu_percent: int | None = None
    gpu_busy: bool = False

    @property
    def reasons(self) -> list[str]:
        found = [f"{kernel.path or kernel.name} runs" for kernel in self.kernels if kernel.busy]
        for terminal in self.terminals:
            if terminal.busy:
                found.append(f"terminal {terminal.name} runs {', '.join(terminal.commands)}")
        if self.gpu_busy:
            found.append("a GPU is busy")
        return found

    @property
    def busy(self) -> bool:
        return bool(self.reasons)


class Activity:
    """Looks every ``interval`` seconds, from `start` to `stop`."""

    def __init__(
        self,
        server: ServerApp,
        gpus: Reader,
        *,
        interval: float,
        gpu_busy_percent: int,
        present_seconds: float,
    ) -> None:
        self._server = server
        self._gpus = gpus
        self._interval = interval
        self._gpu_busy_percent = gpu_busy_percent
        self._present_for = timedelta(seconds=present_seconds)
        self._gpu_busy_at = float("-inf")
        self._last: Look | None = None
        self._last_busy: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self.presence = Presence(self._was_busy)

    def start(self) -> None:
        """Begin to watch; needs a running event loop."""
        self.presence.start(self._server.web_app)
        self._task = asyncio.create_task(self._watch(), name="gpucloud-activity")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("The activity of this server cannot be looked at")
            await asyncio.sleep(self._interval)

    def _was_busy(self) -> bool:
        return self._last is not None and self._last.busy

    async def look(self) -> Look:
        """Look now; work that is found counts as activity."""
        self.presence.keep_note()
        reading = await self._gpus.read()
        percent = reading.utilization
        now = time.monotonic()
        if percent is not None and percent >= self._gpu_busy_percent:
            self._gpu_busy_at = now
        terminals = await asyncio.to_thread(look_at_terminals, self._terminals())
        look = Look(
            at=datetime.now(UTC),
            kernels=await self._kernels(),
            terminals=terminals,
            gpu_percent=percent,
            gpu_busy=now - self._gpu_busy_at < GPU_MEMORY_SECONDS,
        )
        self._last = look
        if look.busy:
            self._last_busy = look.at
            self._server.web_app.settings[WORK] = look.at
        return look

    async def _kernels(self) -> list[Kernel]:
        sessions = await ensure_async(self._server.session_manager.list_sessions())
        paths = {s["kernel"]["id"]: s["path"] for s in sessions if s.get("kernel")}
        models = await ensure_async(self._server.kernel_manager.list_kernels())
        return [
            Kernel(
                id=model["id"],
                name=model["name"],
                path=paths.get(model["id"], ""),
                state=model["execution_state"],
                last_activity=model["last_activity"],
            )
            for model in models
        ]

    def _terminals(self) -> dict[str, int]:
        """The shells by the names of their terminals."""
        manager = self._server.web_app.settings.get("terminal_manager")
        if manager is None:  # terminals are turned off, or not installed
            return {}
        return {str(name): int(term.ptyproc.pid) for name, term in manager.terminals.items()}

    def last_seen(self, look: Look) -> datetime | None:
        """When somebody did something here last."""
        times = [terminal.last_input for terminal in look.terminals]
        return max((t for t in (*times, self.presence.last_input) if t is not None), default=None)

    def as_data(self, look: Look) -> dict[str, Any]:
        """`GET api/activity`."""
        seen = self.last_seen(look)
        return {
            "busy": look.busy,
            "reasons": look.reasons,
            "last_busy": rfc3339(self._last_busy),
            "person": {
                "present": seen is not None and look.at - seen < self._present_for,
                "last_seen": rfc3339(seen),
            },
            "last_activity": rfc3339(self._server.web_app.last_activity()),
            "kernels": [kernel.as_data() for kernel in look.kernels],
            "terminals": [terminal.as_data() for terminal in look.terminals],
            "gpus": {"busy": look.gpu_busy, "utilization_percent": look.gpu_percent},
        }


def look_at_terminals(shells: dict[str, int]) -> list[Terminal]:
    """What runs below each shell. Reads files of /proc."""
    found = []
    for name, pid in shells.items():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            shell = psutil.Process(pid)
            found.append(Terminal(name, _commands(shell), _last_input(shell)))
    return found


def _commands(shell: psutil.Process) -> list[str]:
    """The programs below a shell that work: no shells, nothing that is stopped or dead."""
    names = []
    for child in shell.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            asleep = child.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
            if not asleep and child.name() not in SHELLS:
                names.append(child.name())
    return sorted(set(names))


def _last_input(shell: psutil.Process) -> datetime | None:
    device = shell.terminal()
    if device is None:
        return None
    try:
        status = Path(device).stat()
    except OSError:
        return None
    # the time at which a program read from it; Linux keeps it to eight seconds
    return datetime.fromtimestamp(status.st_atime, UTC)


def rfc3339(moment: datetime | None) -> str | None:
    """In seconds, as everything of gpucloud tells times."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
