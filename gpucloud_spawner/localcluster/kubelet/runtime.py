"""Container processes: start one, watch it, signal it, find it again after a restart.

Each instance of a container has a directory and a shim (see `shim`) that outlives the kubelet. No
Kubernetes object is known here; whether to restart is the pod worker's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import marshal
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
SHIM = Path(__file__).with_name("shim.py")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
UNKNOWN = "Unknown"  # the reason of an end that nobody has seen
SHIM_GRACE = 3.0  # seconds a shim has to end what its container left behind


class StartError(Exception):
    """The container's command cannot be executed; the message is runc's."""


@dataclass(frozen=True)
class Exit:
    """How an instance ended."""

    code: int
    reason: str
    message: str
    started_at: str
    finished_at: str


def find_executable(command: str, path: str, cwd: Path) -> str:
    """What execvp would run, or the StartError that runc would report."""
    if "\0" in command:
        raise StartError(f"exec: {command!r}: invalid argument")
    if "/" in command:
        found = cwd / command
        if not found.exists():
            raise StartError(f'exec: "{command}": stat {command}: no such file or directory')
        if not os.access(found, os.X_OK) or found.is_dir():
            raise StartError(f'exec: "{command}": permission denied')
        return str(found)
    where = shutil.which(command, path=path)
    if where is None:
        raise StartError(f'exec: "{command}": executable file not found in $PATH')
    return where


def proc_stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (index 1: parent, 19: start time), or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def alive(pid: int, ticks: str) -> bool:
    """Whether this pid is still the process that had this start time, and no zombie."""
    stat = proc_stat(pid)
    return stat is not None and stat[19] == ticks and stat[0] != "Z"


def seconds(stamp: str) -> str:
    """A shim's time stamp as a Kubernetes Time."""
    return stamp[:19] + "Z"


def never_ran(directory: Path) -> bool:
    """Whether a start was cut short before anything was executed: the kubelet died before its shim
    had heard what to run. The shim opens the log before it forks."""
    if (directory / "log").exists() or (directory / "exit").exists():
        return False
    try:
        pid, ticks, _ = (directory / "shim").read_text().split()
    except (FileNotFoundError, ValueError):
        return True
    return not alive(int(pid), ticks)


class Instance:
    """One run of a container, in a directory of its own."""

    def __init__(self, directory: Path, on_exit: Callable[[], None]) -> None:
        self.directory = directory
        self.started_at = ""
        self.exit: Exit | None = None
        self.pid = 0  # the container's main process
        self._ticks = ""
        self._shim = 0
        self._shim_ticks = ""
        self._this_boot = False
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._on_exit = on_exit

    @property
    def running(self) -> bool:
        return self._pidfd >= 0

    @property
    def shim(self) -> int:
        """The pid under which all processes of this container hang."""
        return self._shim

    async def start(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, umask: int = 0o022
    ) -> None:
        """Runs the command; returns once it is executed, or raises StartError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        executable = find_executable(argv[0], env.get("PATH", ""), cwd)
        spec = {
            "argv": [executable, list(argv)],
            "env": dict(env),
            "cwd": str(cwd),
            "dir": str(self.directory),
            "umask": umask,
        }
        # Own session: a Ctrl-C at the cluster's terminal and the kubelet's death do not reach it.
        self._popen = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec, no wait
            # The directory is for people who look at `ps`.
            [sys.executable, "-I", "-S", str(SHIM), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._note_shim(self._popen.pid)
        with contextlib.suppress(BrokenPipeError), self._popen.stdin as stdin:
            stdin.write(marshal.dumps(spec))
        try:
            await _closed(self._popen.stdout)
        finally:  # also when this is cancelled: what has been started can be ended
            self._watch()
        self._read_started()
        if not self.pid:
            await self._shim_ended()
            text = self.exit.message if self.exit else ""
            raise StartError(f'exec: "{argv[0]}": {text or "the shim failed"}'.lower())

    def _note_shim(self, pid: int) -> None:
        stat = proc_stat(pid)
        assert stat is not None  # our child, not yet waited for
        self._shim, self._shim_ticks, self._this_boot = pid, stat[19], True
        (self.directory / "shim").write_text(f"{pid} {stat[19]} {BOOT_ID.read_text().strip()}")

    async def _shim_ended(self) -> None:
        while self.exit is None:
            await asyncio.sleep(0.005)

    def adopt(self) -> None:
        """After a restart of the kubelet: goes on watching it, or learns how it ended."""
        self._read_started()
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid, ticks, boot = (self.directory / "shim").read_text().split()
            self._this_boot = boot == BOOT_ID.read_text().strip()
            if self._this_boot and alive(int(pid), ticks):
                self._shim, self._shim_ticks = int(pid), ticks
                try:
                    self._watch()
                    return
                except ProcessLookupError:
                    pass
        self._finish()

    def _watch(self) -> None:
        self._pidfd = os.pidfd_open(self._shim)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_shim_exit)

    def _read_started(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            pid, self._ticks, stamp = (self.directory / "started").read_text().split()
            self.pid, self.started_at = int(pid), seconds(stamp)

    def _on_shim_exit(self) -> None:
        self.release()
        if self._popen is not None:
            self._popen.wait()  # it has ended: this only reaps it
        self._finish()
        self._on_exit()

    def release(self) -> None:
        """Stops watching; the container goes on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _finish(self) -> None:
        if not self.started_at:
            self._read_started()
        with contextlib.suppress(ProcessLookupError):
            if self._main_alive():  # its shim was killed by somebody
                os.killpg(self.pid, signal.SIGKILL)
        try:
            code, stamp, reason, message = (self.directory / "exit").read_text().split(" ", 3)
        except (FileNotFoundError, ValueError):
            self.exit = self._unknown()
            return
        finished = seconds(stamp)
        started = self.started_at or "1970-01-01T00:00:00Z"  # as containerd says of a StartError
        if (self.directory / "shutdown").exists():
            self.exit = self._unknown(finished)
        elif (self.directory / "oomkilled").exists():
            self.exit = Exit(137, "OOMKilled", "", started, finished)
        elif reason != "-":
            self.exit = Exit(int(code), reason, message, started, finished)
        else:
            reason = "Completed" if code == "0" else "Error"
            self.exit = Exit(int(code), reason, "", started, finished)

    def _main_alive(self) -> bool:
        """Whether its main process lives; never true for another process with a recycled pid."""
        return self.pid > 1 and self._this_boot and alive(self.pid, self._ticks)

    def _unknown(self, finished: str = "") -> Exit:
        # What a kubelet finds after a reboot: the container ended with its node, not by itself.
        started = self.started_at or "1970-01-01T00:00:00Z"
        return Exit(255, UNKNOWN, "", started, finished or started)

    def mark(self, what: str) -> None:
        """Leaves a note on why it is being ended: "oomkilled" or "shutdown"."""
        with contextlib.suppress(OSError):
            (self.directory / what).touch()

    def terminate(self) -> None:
        """SIGTERM to the main process, as a container runtime does."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; the shim then ends everything that the container has started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.running and self._main_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self, grace: float, *, ask: bool = True) -> None:
        """Ends it within the grace period, and surely; with ask=False it has been asked before."""
        await self._main_known()
        if grace > 0:
            if ask:
                self.terminate()
            if await self._ended(grace):
                return
        self.kill()
        if await self._ended(SHIM_GRACE):
            return
        log.warning("%s: its shim does not end; killing everything under it", self.directory)
        self.kill_tree()
        await self._ended(SHIM_GRACE)

    async def _main_known(self) -> None:
        """After a start that was cut short: whom to signal is known once the shim has said so."""
        deadline = asyncio.get_running_loop().time() + SHIM_GRACE
        while self.running and not self.pid and asyncio.get_running_loop().time() < deadline:
            self._read_started()
            if not self.pid:
                await asyncio.sleep(0.01)

    async def _ended(self, timeout: float) -> bool:
        deadline = asyncio.get_running_loop().time() + timeout
        pause = 0.005
        while self.running:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.1)
        return True

    def kill_tree(self) -> None:
        """For a pod nobody knows any more, or a shim that hangs: SIGKILL to all, without waiting.

        Only while its shim is surely the process that we started: a wrong root of the tree would
        end processes that are not ours.
        """
        if not (self.running and self._shim > 1 and alive(self._shim, self._shim_ticks)):
            return
        for pid in (*descendants(self._shim), self._shim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _closed(pipe: IO[bytes]) -> None:
    """Waits until the other end of a pipe is closed."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(pipe, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(pipe)
        pipe.close()


def process_table() -> dict[int, list[int]]:
    """The children of every process of this machine, from one pass over /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - called every few seconds
        if entry.isdigit() and (stat := proc_stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    return children


def descendants(root: int, table: dict[int, list[int]] | None = None) -> list[int]:
    """All processes below this one."""
    if root <= 1:
        raise ValueError(f"process {root} is not one of ours")
    table = process_table() if table is None else table
    found, todo = [], [root]
    while todo:
        below = table.get(todo.pop(), [])
        found.extend(below)
        todo.extend(below)
    return found


def memory_of(pids: Sequence[int], limit: int) -> int:
    """Bytes these processes hold. Resident sizes count shared pages several times; only if their
    sum is above the limit is the exact (and slow) proportional size asked for."""
    page = os.sysconf("SC_PAGE_SIZE")
    resident = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
    if resident <= limit:
        return resident
    exact = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                return resident
            continue
        exact += next(
            (int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0
        )
    return exact * 1024
