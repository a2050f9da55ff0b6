"""A member's side of the gang: a connection to the lead that comes back, and the lead's commands.

What the lead decides and why is in `lead`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

from .contract import STOPPED, Failure, Replica
from .lead import MAX_LINE
from .names import Names

log = logging.getLogger(__name__)

_RETRY = 0.2  # seconds between attempts at first; grows
_MAX_RETRY = 2.0
Command = dict[str, Any]


class Gang:
    """This replica's place in the gang. `run` keeps the connection, until cancelled."""

    def __init__(self, replica: Replica, names: Names, say: Callable[[str], None]) -> None:
        self._replica = replica
        self._names = names
        self._say = say
        self._report: dict[str, Any] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self.missing: list[str] = []
        self.restart = 0  # which start of this replica it is
        self.generation = ""

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def report(self, state: str) -> None:
        """Tell the lead; again after each reconnection."""
        self._report = {
            "label": self._replica.label,
            "job": self._replica.job,
            "state": state,
            "restart": self.restart,
            "generation": self.generation,
        }
        self._send()

    async def next(self, timeout: float | None = None) -> Command:
        """The lead's next command. Raises TimeoutError, Failure."""
        async with asyncio.timeout(timeout):
            command = await self._commands.get()
        if command["do"] == "replaced":
            raise Failure(STOPPED, "replaced", "Another pod has taken this replica's place.")
        return command

    async def gather(self) -> Command:
        """Wait until all are there; the command `go`, or `end`. The caller bounds the time."""
        self.report("joined")
        while True:
            command = await self.next()
            match command["do"]:
                case "resolve":
                    self.missing = []
                    await self._resolve_all()
                    self.report("ready")
                case "waiting":
                    if command["missing"] != self.missing:
                        self.missing = command["missing"]
                        self._say(f"waiting for {', '.join(self.missing)}")
                case "go":
                    self.generation = command["generation"]
                    self.report("running")
                    return command
                case "end":
                    return command
                case _:  # it waits already
                    self.report("joined")

    async def _resolve_all(self) -> None:
        for addresses in self._replica.cluster.values():
            for address in addresses:
                await self._resolve(address.rpartition(":")[0])

    async def _resolve(self, host: str) -> str:
        delay = _RETRY
        while (found := await asyncio.to_thread(self._names.address, host)) is None:
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _MAX_RETRY)
        return found

    async def run(self) -> None:
        """Keep connected to the lead, also when it is restarted."""
        host, _, port = self._replica.rendezvous.rpartition(":")
        delay = _RETRY
        while True:
            try:
                address = await self._resolve(host)
                reader, writer = await asyncio.open_connection(address, int(port), limit=MAX_LINE)
            except OSError:
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, _MAX_RETRY)
                continue
            delay = _RETRY
            _keep_alive(writer)
            self._writer = writer
            self._send()
            try:
                while line := await reader.readline():
                    self._commands.put_nowait(json.loads(line))
            except (OSError, ValueError) as error:
                log.info("the lead: %s", error)
            finally:
                self._writer = None
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await asyncio.sleep(_RETRY)

    def _send(self) -> None:
        if self._writer is not None and self._report:
            self._writer.write(json.dumps(self._report).encode() + b"\n")


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """A node that vanishes says nothing: the kernel asks it every few seconds."""
    own: socket.socket = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
