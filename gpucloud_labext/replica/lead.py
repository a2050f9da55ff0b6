"""The lead replica's side of the gang: who is there, who trains, who may go.

Members report their state over a TCP connection that stays open, one JSON object a line; the lead
answers with commands. It decides by the whole picture after every change:

* nobody trains before all members are there and can resolve each other's names (`resolve`, `go`);
* a member that comes back finds the others: all begin again from the last checkpoint (`again`). A
  worker of a job with parameter servers comes back alone: its coordinator goes on meanwhile;
* a script that fails ends its replica (`exit`), unless another replica was lost: then it is that
  one's failure, and the script waits for it;
* of two that claim one place, the one that was started later has it (`replaced`);
* when the deciding replicas are done, all may end (`end`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

from .contract import Replica

log = logging.getLogger(__name__)

MAX_LINE = 16 * 1024
# Seconds in which a failure may be the echo of another replica's loss, seen or not yet seen.
_ECHO, _UNSEEN = 60.0, 1.0


@dataclass
class Seat:
    """One member's connection and what it said last."""

    writer: asyncio.StreamWriter
    state: str = "joined"  # joined, resolving, ready, running, stopping, failed, done, leaving

    def send(self, command: str, **more: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps({"do": command, **more}).encode() + b"\n")


class Lead:
    """The rendezvous of one job, served by its lead replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._seats: dict[str, Seat] = {}
        self._generation = ""
        self._lost: dict[str, float] = {}
        self._newest: dict[str, int] = {}  # the latest start of each member
        self._over = False
        self._server: asyncio.Server | None = None
        self._verdicts: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Raises OSError: the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_LINE)

    async def close(self) -> None:
        """End all connections; what is to be said to members is delivered first."""
        await asyncio.gather(*self._verdicts, return_exceptions=True)
        for seat in list(self._seats.values()):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await seat.writer.drain()
            seat.writer.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        label, seat = "", Seat(writer)
        try:
            while line := await reader.readline():
                report = json.loads(line)
                if not label:
                    label = str(report.get("label"))
                    if report.get("job") != self._replica.job or label not in self._replica.members:
                        return
                    started = int(report.get("restart", 0))
                    if started < self._newest.get(label, 0):
                        # of a node that was given up and is back: its place is taken
                        seat.send("replaced")
                        return
                    self._newest[label] = started
                    previous, self._seats[label] = self._seats.get(label), seat
                    if previous is not None:
                        previous.writer.close()
                self._report(label, seat, report)
        except (OSError, ValueError, AttributeError) as error:
            log.info("%s: %s", label or "a stranger", error)
        finally:
            writer.close()
            if label and self._seats.get(label) is seat:
                del self._seats[label]
                if seat.state != "leaving":
                    self._lost[label] = time.monotonic()
                self._decide()

    def _report(self, label: str, seat: Seat, report: dict[str, Any]) -> None:
        state = str(report.get("state"))
        stale = report.get("generation") != self._generation
        if state in ("running", "done", "failed") and stale:
            # it began before this lead did, with members that may be others now
            seat.state = "stopping"
            seat.send("again")
        elif state == "failed":
            seat.state = "failed"
            task = asyncio.create_task(self._judge(label, seat))
            self._verdicts.add(task)
            task.add_done_callback(self._verdicts.discard)
        else:
            seat.state = state
        self._decide()

    async def _judge(self, label: str, seat: Seat) -> None:
        """Its own failure, or that of another replica?"""
        await asyncio.sleep(_UNSEEN)
        now = time.monotonic()
        lost = [name for name in self._replica.members if name != label and self._absent(name, now)]
        if seat.state != "failed":
            return
        if lost:
            seat.state = "stopping"
            seat.send("again", lost=lost)
        else:
            seat.state = "leaving"
            seat.send("exit")
        self._decide()

    def _absent(self, name: str, now: float) -> bool:
        seat = self._seats.get(name)
        if seat is None or seat.state == "leaving":
            return True
        return now - self._lost.get(name, -_ECHO) < _ECHO

    def _decide(self) -> None:
        """What follows from who is there, whatever happened last."""
        if self._over:
            return
        if self._all_done():
            self._over = True
            for seat in self._seats.values():
                seat.state = "leaving"
                seat.send("end")
            return
        seats = self._seats
        waiting = {n: s for n, s in seats.items() if s.state in ("joined", "resolving", "ready")}
        if not waiting:
            return
        missing = [name for name in self._replica.members if name not in seats]
        if self._generation and self._may_rejoin_alone([*waiting, *missing]):
            self._advance(waiting)
            return
        for seat in seats.values():
            if self._generation and seat.state in ("running", "done"):
                seat.state = "stopping"
                seat.send("again", lost=list(waiting))
        if missing:
            for seat in waiting.values():
                seat.send("waiting", missing=missing)
        elif len(waiting) == len(seats):
            if all(seat.state == "ready" for seat in waiting.values()):
                self._generation = uuid.uuid4().hex
            self._advance(waiting)

    def _may_rejoin_alone(self, names: list[str]) -> bool:
        others = [seat for name, seat in self._seats.items() if name not in names]
        servers = self._replica.has_servers and all(name.startswith("worker-") for name in names)
        return servers and all(seat.state == "running" for seat in others)

    def _advance(self, waiting: dict[str, Seat]) -> None:
        """One step further for those that wait: names first, then the start."""
        for seat in waiting.values():
            if seat.state == "joined":
                seat.state = "resolving"
                seat.send("resolve")
        if self._generation and all(seat.state == "ready" for seat in waiting.values()):
            for seat in waiting.values():
                seat.state = "running"
                seat.send("go", generation=self._generation)

    def _all_done(self) -> bool:
        names = self._replica.members
        if self._replica.has_servers and "chief-0" in names:
            deciding = ["chief-0"]
        else:
            deciding = [name for name in names if not name.startswith("ps-")]
        seats = [self._seats.get(name) for name in deciding]
        return all(seat is not None and seat.state == "done" for seat in seats)
