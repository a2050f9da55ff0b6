"""A command inside a running container, its streams over a WebSocket (`kubectl exec`).

The first byte of every message names its channel: 0 stdin, 1 stdout, 2 stderr, 3 how it ended (a
Status), 4 the size of a terminal; in version 5, 255 says that the client is done with a channel.
The command belongs to the container as its probes do: it ends with it. It also ends with its
connection, after a moment in which it may finish with what it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import IO, Any

import aiohttp
import orjson
from aiohttp import web

from .container import Container
from .probes import Target
from .runtime import StartError, descendants, find_executable

Obj = dict[str, Any]
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
STREAMS = ("stdin", "stdout", "stderr")
PIECE = 32 * 1024
HANG_UP_SECONDS = 2.0  # from the loss of the connection to SIGKILL
TELL_SECONDS = 1.0
KILLED = 128 + signal.SIGKILL


async def serve_exec(request: web.Request, container: Container) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise web.HTTPBadRequest(text=f"exec needs a WebSocket ({' or '.join(PROTOCOLS)})")
    socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False)
    await socket.prepare(request)
    session = Session(socket, request, container)
    try:
        # Not this handler's own work: it is cancelled when the connection is lost, but the command
        # may then still finish with what it was sent.
        work = container.spawn(session.run())
        await asyncio.wait({work})
        if not work.cancelled():
            work.result()
    finally:
        session.lost.set()
    return socket


class Session:
    """One command and its connection."""

    def __init__(
        self, socket: web.WebSocketResponse, request: web.Request, container: Container
    ) -> None:
        self.lost = asyncio.Event()
        self._socket = socket
        self._container = container
        self._command = request.query.getall("command", [])
        self._wanted = {k for k in STREAMS if request.query.get(k) == "true"}

    async def run(self) -> None:
        """Runs the command, tells how it ended, and closes the connection."""
        try:
            status = await self._run()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_SECONDS):
                    await self._finish(_exited(self._command, KILLED))
            raise
        except (StartError, OSError, ValueError) as error:
            status = _failed(f"error executing command in container: {error}")
        await self._finish(status)

    async def _finish(self, status: Obj) -> None:
        await self._send(ERROR, orjson.dumps(status))
        await self._socket.close()

    async def _run(self) -> Obj:
        target = self._container.target
        if target is None:
            return _failed(f'container not found ("{self._container.name}")')
        process = _start(self._command, target, self._wanted)
        work: list[asyncio.Task[Any]] = []
        stdin: asyncio.StreamWriter | None = None
        try:
            stdin = await _writer(process.stdin)
            ended = asyncio.create_task(_exit_of(process))
            outputs = [
                asyncio.create_task(self._copy(channel, pipe))
                for channel, pipe in ((STDOUT, process.stdout), (STDERR, process.stderr))
            ]
            # What it has left running may still write: as in a container, that is waited for.
            done = asyncio.create_task(_all([ended, *outputs]))
            listening = asyncio.create_task(self._listen(stdin))
            lost = asyncio.create_task(self.lost.wait())
            work = [ended, *outputs, done, listening, lost]
            await asyncio.wait({done, listening, lost}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({done}, timeout=HANG_UP_SECONDS)
        finally:
            _kill(process)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            if stdin is not None:
                stdin.close()
        return _exited(self._command, process.returncode)

    async def _listen(self, stdin: asyncio.StreamWriter | None) -> None:
        """Takes what the client sends, until it hangs up."""
        try:
            async for message in self._socket:
                data = message.data
                if message.type is aiohttp.WSMsgType.TEXT:
                    data = data.encode()
                elif message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                if stdin is None or stdin.is_closing():
                    continue
                if data[:1] == bytes([STDIN]):
                    stdin.write(data[1:])
                    with contextlib.suppress(ConnectionError):  # it has closed its stdin
                        await stdin.drain()
                elif data == bytes([CLOSE, STDIN]):
                    stdin.close()
        finally:
            if stdin is not None:
                stdin.close()  # once all has been written

    async def _copy(self, channel: int, pipe: IO[bytes] | None) -> None:
        if pipe is None:
            return
        reader = asyncio.StreamReader(limit=PIECE)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            while data := await reader.read(PIECE):
                await self._send(channel, data)
        finally:
            transport.close()

    async def _send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_bytes(bytes([channel]) + data)


def _start(command: Sequence[str], target: Target, wanted: set[str]) -> subprocess.Popen[bytes]:
    argv = [target.translate(text) for text in command]
    if not argv:
        raise StartError("no command")
    executable = find_executable(argv[0], target.env.get("PATH", ""), target.cwd)
    stdin, stdout, stderr = (
        subprocess.PIPE if name in wanted else subprocess.DEVNULL for name in STREAMS
    )
    return subprocess.Popen(
        argv,
        bufsize=0,
        executable=executable,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=dict(target.env),
        cwd=target.cwd,
        start_new_session=True,
        umask=0o022,  # a container's
    )


async def _exit_of(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end without reaping: until then its pid, and its group's, are surely its."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the command with all that it has started, and reaps it."""
    for pid in descendants(process.pid):  # also in sessions of their own
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def _writer(pipe: IO[bytes] | None) -> asyncio.StreamWriter | None:
    if pipe is None:
        return None
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def _exited(command: Sequence[str], returncode: int) -> Obj:
    code = returncode if returncode >= 0 else 128 - returncode
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    why = f"error executing command [{' '.join(command)}], exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {why}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failed(why: str) -> Obj:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {why}",
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }
