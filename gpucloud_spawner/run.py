"""`gpucloud run`: the local cluster and the hub as children of one foreground process.

It supervises; it knows nothing of what the children do. A child that dies is started again, and on
SIGINT or SIGTERM every child is ended. State is kept in GPUCLOUD_DATA.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 20  # a child that has not ended by then is killed
READY_SECONDS = 120
QUICK_DEATH_SECONDS = 10  # dying sooner than this after a start counts as failing
MAX_QUICK_DEATHS = 3
LOG_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class RunError(Exception):
    """Why gpucloud cannot run; one message for the person at the terminal."""


@dataclass
class Child:
    """One supervised process; its output goes to ``log``."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    is_ready: Callable[[], Awaitable[bool]]
    sign_of_life: Path | None = None  # a file that it makes; one of an earlier run must not count
    process: asyncio.subprocess.Process | None = None
    started_at: float = 0.0
    quick_deaths: int = field(default=0)

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises RunError where it never is."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.sign_of_life:
            self.sign_of_life.unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # not in our process group: Ctrl-C must reach us alone, to end children in order
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.started_at = time.monotonic()
        deadline = self.started_at + READY_SECONDS
        while not await self.is_ready():
            if self.process.returncode is not None:
                raise RunError(f"the {self.name} ended while it started.\n{self.tail()}")
            if time.monotonic() > deadline:
                raise RunError(
                    f"the {self.name} was not ready in {READY_SECONDS} s; see {self.log}"
                )
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_SECONDS."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def keep_running(self) -> None:
        """Start it again whenever it ends. Raises RunError when it keeps failing."""
        while True:
            assert self.process is not None
            code = await self.process.wait()
            quick = time.monotonic() - self.started_at < QUICK_DEATH_SECONDS
            self.quick_deaths = self.quick_deaths + 1 if quick else 0
            if self.quick_deaths >= MAX_QUICK_DEATHS:
                raise RunError(f"the {self.name} keeps failing.\n{self.tail()}")
            say(f"the {self.name} ended (exit code {code}); starting it again")
            await self.start()
            say(f"the {self.name} is back")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"Last lines of {self.log}:", *lines])


def say(message: str) -> None:
    print(f"[gpucloud] {message}", flush=True)


def _die_with_parent() -> None:
    """In the child: end when the supervisor is killed, so that nothing is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def run(config: Path) -> None:
    """Run everything until SIGINT or SIGTERM. Raises RunError where it cannot run."""
    if not config.is_file():
        raise RunError(f"there is no {config}: run this in the project's folder, or give --config")
    data = Path(os.environ.get("GPUCLOUD_DATA") or ".gpucloud").absolute()
    data.mkdir(parents=True, exist_ok=True)
    children = _children(config.absolute(), data)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    work = asyncio.create_task(_supervise(children, data))
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        say("stopping; user servers start again with the next run")
    finally:
        for task in (work, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RunError):
                await task
        # the hub first: it must not take the end of the cluster for the end of its servers
        for child in reversed(children):
            await child.stop()


async def _supervise(children: list[Child], data: Path) -> None:
    for child in children:
        await child.start()
    say(f"logs are in {data / 'logs'}")
    print(f"gpucloud is ready at http://127.0.0.1:{_port()}", flush=True)
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(_flat(child.keep_running()))


async def _flat(running: Awaitable[None]) -> None:
    """Let a RunError end the process with its message, not as a nested exception group."""
    try:
        await running
    except RunError as error:
        print(f"gpucloud: {error}", file=sys.stderr, flush=True)
        signal.raise_signal(signal.SIGTERM)


def _port() -> int:
    text = os.environ.get("GPUCLOUD_PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) < 65533:
        raise RunError(f"GPUCLOUD_PORT must be a port from 1 to 65532, not {text!r}")
    return int(text)


def _children(config: Path, data: Path) -> list[Child]:
    here = Path(sys.executable).parent
    environment = dict(os.environ)
    # our environment's own programs first: jupyterhub, and node where the machine has none
    environment["PATH"] = f"{here}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment["GPUCLOUD_DATA"] = str(data)
    children = []
    cluster = os.environ.get("GPUCLOUD_CLUSTER") or "local"
    if cluster == "local":
        environment["KUBECONFIG"] = str(data / "kubeconfig")
        children.append(_local_cluster(data, environment))
    elif cluster != "kubeconfig":
        raise RunError(f"GPUCLOUD_CLUSTER must be 'local' or 'kubeconfig', not {cluster!r}")
    hub = Child(
        name="hub",
        command=[sys.executable, "-m", "jupyterhub", "--config", str(config)],
        environment=environment,
        log=data / "logs" / "hub.log",
        is_ready=_answers(f"http://127.0.0.1:{_port()}/hub/login"),
    )
    return [*children, hub]


def _local_cluster(data: Path, environment: dict[str, str]) -> Child:
    ready = data / "kubeconfig"
    command = [sys.executable, "-m", "gpucloud_spawner.localcluster", "up", "--data", str(data)]

    async def is_ready() -> bool:
        return ready.is_file()

    log = data / "logs" / "cluster.log"
    return Child("local cluster", command, environment, log, is_ready, sign_of_life=ready)


def _answers(url: str) -> Callable[[], Awaitable[bool]]:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def is_ready() -> bool:
        return await asyncio.to_thread(ask)

    return is_ready
