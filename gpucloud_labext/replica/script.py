"""The user's command as a child in a session of its own: started, signalled, ended as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import child
from .contract import SIGNALLED
from .output import Output, Pump

_DRAIN = 5.0  # seconds for the rest of its output; a left-behind process may hold the pipe open


class Script:
    """One run of a command. Made by `start`, ended by itself or by `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, pump: Pump) -> None:
        self._process = process
        self._pump = pump

    @classmethod
    async def start(
        cls, command: Sequence[str], folder: Path, environment: Mapping[str, str], output: Output
    ) -> Script:
        reading, writing = os.pipe()
        wrapper = [sys.executable, "-I", "-S", child.__file__, str(os.getpid())]
        try:
            process = await asyncio.create_subprocess_exec(
                *wrapper,
                *command,
                cwd=folder,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        pump = Pump(reading, output)
        pump.start()
        return cls(process, pump)

    async def wait(self) -> int:
        """Its exit code, as a shell tells it; all it said is in the output then."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)  # whatever it left behind in its session
        await asyncio.to_thread(self._pump.join, _DRAIN)
        return SIGNALLED - code if code < 0 else code

    async def stop(self, grace: float) -> int:
        """SIGTERM to all of it, after ``grace`` seconds SIGKILL; its exit code."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._process.wait()
        self._signal(signal.SIGKILL)
        return await self.wait()

    def _signal(self, number: int) -> None:
        # its own session, so its group has its number, and only as long as anybody is in it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
