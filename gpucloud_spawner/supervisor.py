"""Processes that are kept running: started, watched, started again, ended in order.

It knows nothing of what they do; `run` says which there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 20  # a child that has not ended by then is killed
READY_SECONDS = 120
QUICK_DEATH_SECONDS = 10  # dying sooner than this after a start counts as failing
MAX_QUICK_DEATHS = 5
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
        while True:
            if self.process.returncode is not None:
                raise RunError(f"the {self.name} ended while it started.\n{self.tail()}")
            if await self.is_ready():
                return
            if time.monotonic() - self.started_at > READY_SECONDS:
                late = f"the {self.name} was not ready in {READY_SECONDS} s"
                raise RunError(f"{late}; see {self.log}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_SECONDS."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def keep_running(self) -> None:
        """Start it again whenever it ends. Raises RunError when it keeps failing."""
        while True:
            assert self.process is not None
            code = await self.process.wait()
            say(f"the {self.name} ended (exit code {code}); starting it again")
            await self._start_again()
            say(f"the {self.name} is back")

    async def _start_again(self) -> None:
        quick = time.monotonic() - self.started_at < QUICK_DEATH_SECONDS
        self.quick_deaths = self.quick_deaths + 1 if quick else 0
        while True:
            if self.quick_deaths >= MAX_QUICK_DEATHS:
                raise RunError(f"the {self.name} keeps failing.\n{self.tail()}")
            try:
                return await self.start()
            except RunError:
                # perhaps what it needs is being started again, too: a pause that grows
                await self.stop()
                self.quick_deaths += 1
                await asyncio.sleep(0.5 * 2**self.quick_deaths)

    def tail(self) -> str:
        """The last lines of its log, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"Last lines of {self.log}:", *lines])


def say(message: str) -> None:
    """One line for the person at the terminal."""
    print(f"[gpucloud] {message}", flush=True)


def _die_with_parent() -> None:
    """In the child: end when the supervisor is killed, so that nothing is left behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def start_all(children: list[Child]) -> None:
    """Start them one after the other: a later one may need an earlier one."""
    for child in children:
        await child.start()


async def keep_all_running(children: list[Child]) -> None:
    """Until cancelled. Raises the first RunError of one that keeps failing."""
    tasks = [asyncio.create_task(child.keep_running()) for child in children]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RunError):
                await task


async def stop_all(children: list[Child]) -> None:
    """In the opposite order: none may take the end of what it needs for an accident."""
    for child in reversed(children):
        await child.stop()
