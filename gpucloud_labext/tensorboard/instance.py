"""One TensorBoard: its process, its last lines, its memory, the connections to its socket.

What there may be of them, and who may have them, is the manager's and the proxy's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from .logdirs import LogDir

STARTING, RUNNING, FAILED = "starting", "running", "failed"
LOG_LINES = 60
LOG_LINE_CHARS = 2000
POLL_SECONDS = 0.05
END_SECONDS = 3.0
CONNECTIONS = 32
# of the server's environment: rights that TensorBoard has no use for
WITHHELD = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "JUPYTER_TOKEN", "GPUCLOUD_API_URL")


@dataclass(frozen=True)
class Settings:
    """How they are started; the meaning of each is in manager.py's traits."""

    start_timeout: float
    reload_seconds: int
    poll_seconds: float
    max_bytes: int
    samples_per_plugin: str
    private_loopback: bool


class Instance:
    """From its start to its end; then it is of no more use. For one event loop."""

    def __init__(self, logdir: LogDir, folder: Path, settings: Settings) -> None:
        self.id = secrets.token_hex(8)
        self.logdir = logdir
        self.state = STARTING
        self.reason = ""
        self.started = datetime.now(UTC)
        self.last_used = self.started
        self._used = time.monotonic()
        self._folder = folder / self.id
        self._socket = self._folder / "socket"
        self._settings = settings
        self._said: deque[str] = deque(maxlen=LOG_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._settled = asyncio.Event()
        self._stopping = asyncio.Event()
        self._life = asyncio.create_task(self._live(), name=f"tensorboard {self.id}")

    # --- use ---

    def touch(self) -> None:
        """Somebody looks at it."""
        self.last_used = datetime.now(UTC)
        self._used = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Since somebody last looked at it."""
        return time.monotonic() - self._used

    async def settled(self) -> str:
        """The state, once it is no longer `starting`."""
        await self._settled.wait()
        return self.state

    @property
    def session(self) -> aiohttp.ClientSession:
        """Connections to its socket, kept open between requests."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket), limit=CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def memory_bytes(self) -> int:
        """Of its process and what that started. Reads /proc: for a worker thread."""
        if self._process is None or self._process.returncode is not None:
            return 0
        total = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            for process in [own, *own.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def log(self) -> list[str]:
        """Its last lines."""
        return list(self._said)

    # --- life ---

    async def stop(self) -> None:
        """End it, and remove what it kept on the disk. May be called twice, or be cancelled."""
        self._stopping.set()
        await asyncio.shield(self._life)

    async def _live(self) -> None:
        """Start, say so, wait for the end: by itself (a failure) or because of `stop`."""
        reason = "It was stopped."
        reading: asyncio.Task[None] | None = None
        try:
            self._process = process = await self._start()
            assert process.stdout is not None
            reading = asyncio.create_task(self._read(process.stdout), name=f"log of {self.id}")
            await self._wait_for_socket(process)
            if not self._stopping.is_set():
                self.state = RUNNING
                self.touch()  # a slow start is no idleness
                self._settled.set()
            while not self._stopping.is_set():
                if process.returncode is not None:
                    raise ChildProcessError(_how_it_ended(process.returncode))
                await self._pause()
        except (OSError, TimeoutError) as error:
            reason = str(error)
        finally:
            await self._clear_up(reading)
            self.state, self.reason = FAILED, reason
            self._settled.set()

    async def _clear_up(self, reading: asyncio.Task[None] | None) -> None:
        if self._process is not None:
            await self._end_process(self._process)
        if reading is not None:
            await reading  # the pipe has ended with the process
        if self._session is not None:
            await self._session.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _pause(self) -> None:
        """Until the process has ended or shall end."""
        assert self._process is not None
        ends = [
            asyncio.create_task(self._process.wait(), name=f"end of {self.id}"),
            asyncio.create_task(self._stopping.wait(), name=f"stop of {self.id}"),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _start(self) -> asyncio.subprocess.Process:
        self._folder.mkdir(mode=0o700)
        return await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.PIPE,  # its end is TensorBoard's, also when we are killed
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(os.environ),
            cwd=self._folder,
            start_new_session=True,
        )

    def _command(self) -> list[str]:
        own = self._settings
        logdir = self.logdir.path
        # -P: no module of the user's own folder stands in for one of TensorBoard's
        command = [sys.executable, "-P", "-m", "gpucloud_labext.tensorboard.serve"]
        if logdir is None:
            # the page names the directory while it is empty
            logdir = self._folder / "s3" / self.logdir.bucket / self.logdir.prefix
            command += ["--s3", json.dumps(self._source())]
        command += ["--socket", str(self._socket), "--logdir", str(logdir)]
        command += ["--title", f"TensorBoard: {self.logdir.text}"]
        command += ["--reload-seconds", str(own.reload_seconds)]
        command += ["--fast", "yes" if own.private_loopback else "auto"]
        if own.samples_per_plugin:
            command.append(f"--samples-per-plugin={own.samples_per_plugin}")
        return command

    def _source(self) -> dict[str, Any]:
        return {
            "bucket": self.logdir.bucket,
            "prefix": self.logdir.prefix,
            "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or "",
            "region_name": os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            "poll_seconds": self._settings.poll_seconds,
            "max_bytes": self._settings.max_bytes,
        }

    def _environment(self, server: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in server.items() if name not in WITHHELD}
        # looking at logs never takes a GPU
        return {
            **kept,
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TMPDIR": str(self._folder),
        }

    async def _wait_for_socket(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + self._settings.start_timeout
        while not self._stopping.is_set() and not await self._answers():
            if process.returncode is not None:
                raise ChildProcessError("TensorBoard could not be started.")
            if time.monotonic() > deadline:
                seconds = f"{self._settings.start_timeout:.0f} seconds"
                raise TimeoutError(f"TensorBoard did not answer within {seconds}.")
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.close()
        return True

    async def _end_process(self, process: asyncio.subprocess.Process) -> None:
        """By the end of its input, and by force where that is slow."""
        if process.stdin is not None:
            process.stdin.close()
        for _ in range(int(END_SECONDS / POLL_SECONDS)):
            if process.returncode is not None:
                break
            await asyncio.sleep(POLL_SECONDS)
        # its pid is that of its session; what has found no end by itself goes with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Keep its last lines. Not in a file: a chatty one would fill the disk."""
        rest = ""
        while block := await stream.read(8192):
            *lines, rest = (rest + block.decode(errors="replace")).split("\n")
            self._said.extend(line[:LOG_LINE_CHARS] for line in lines if line.strip())
            rest = rest[-LOG_LINE_CHARS:]
        if rest.strip():
            self._said.append(rest)


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "TensorBoard was killed, maybe because the memory was used up."
    return f"TensorBoard ended by itself (exit code {code})."
