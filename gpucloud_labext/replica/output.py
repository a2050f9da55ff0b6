"""What a replica says: at once to the pod's log, every second or so to the user's bucket.

The script's output is taken line by line, so that lines of different replicas never mix, and of a
progress bar that rewrites its line only what is left in the end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import BinaryIO

from ..jobs.logfiles import MAX_PARTS, PART_BYTES, folder, part_key, parts
from ..jobs.store import Store, words
from ..s3.failures import StoreErrors

log = logging.getLogger(__name__)

MAX_LINE = 64 * 1024
_WAITING_PARTS = 64  # kept while the store is away; older ones are given up
_TAIL_LINES = 40
_UNENDED = 5.0  # seconds after which a line that never ends is shown as it stands


@dataclass
class _Part:
    number: int
    data: bytearray = field(default_factory=bytearray)
    sent: int = 0


class Output:
    """The one writer of a replica's log. Safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        job_prefix: str,
        label: str,
        every: float,
        stdout: BinaryIO | None = None,
    ) -> None:
        self._store = store
        self._prefix = job_prefix
        self._label = label
        self._every = every
        self._stdout = stdout or sys.stdout.buffer
        self._lock = threading.Lock()
        # one at a time: of two that send the same part, the one that knows less might come last
        self._sending = threading.Lock()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._waiting: list[_Part] = []
        self._next = 0
        self._placed = False  # whether the parts that are there are known

    # --- writing ---

    def say(self, text: str) -> None:
        """A line of the runner itself."""
        self.line(f"gpucloud: {text}".encode(), own=True)

    def line(self, text: bytes, own: bool = False) -> None:
        """One line without its end."""
        text = text.rstrip(b"\r").rsplit(b"\r", 1)[-1]
        with self._lock:
            self._stdout.write(text + b"\n")
            self._stdout.flush()
            if not own:
                self._tail.append(text.decode(errors="replace"))
            self._append(text + b"\n")

    def tail(self) -> list[str]:
        """The last lines of the script."""
        with self._lock:
            return list(self._tail)

    def forget_tail(self) -> None:
        """A new start of the script: what the last one said is no reason for its end."""
        with self._lock:
            self._tail.clear()

    def _append(self, data: bytes) -> None:
        if not self._waiting or len(self._waiting[-1].data) >= PART_BYTES:
            number = self._waiting[-1].number + 1 if self._waiting else self._next
            self._next = number + 1
            self._waiting.append(_Part(number))
            del self._waiting[1 : -_WAITING_PARTS + 1]
        self._waiting[-1].data += data

    # --- sending ---

    async def run(self) -> None:
        """Send what is new, until cancelled."""
        while True:
            await asyncio.to_thread(self.send)
            await asyncio.sleep(self._every)

    def begin(self) -> None:
        """Find the place behind what earlier starts of this replica have written.

        A store that is away is asked again before anything is sent: nothing is overwritten.
        """
        try:
            keys = (entry.key for entry in self._store.entries(folder(self._prefix) + self._label))
            there = parts(self._prefix, keys).get(self._label, [])
        except StoreErrors as error:
            log.warning("log parts: %s", words(error))
            return
        first = there[-1] + 1 if there else 0
        with self._lock:
            for part in self._waiting:
                part.number += first
            self._next += first
            self._placed = True

    def send(self) -> None:
        """Send what is new. Blocking; what does not get through is tried again the next time."""
        with self._sending:
            if not self._placed:
                self.begin()
            if self._placed:
                self._send()

    def _send(self) -> None:
        with self._lock:
            todo = [(p, bytes(p.data)) for p in self._waiting if p.sent < len(p.data)]
        for part, data in todo:
            if part.number >= MAX_PARTS:
                break
            try:
                key = part_key(self._prefix, self._label, part.number)
                self._store.put(key, data, "text/plain; charset=utf-8")
            except StoreErrors as error:
                log.warning("log: %s", words(error))
                break
            part.sent = len(data)
        with self._lock:
            # the last one may still grow
            full = [p for p in self._waiting[:-1] if p.sent == len(p.data)]
            self._waiting = [p for p in self._waiting if p not in full]


class Pump(threading.Thread):
    """Reads a pipe until its end and makes lines of it."""

    def __init__(self, fd: int, output: Output) -> None:
        super().__init__(name="gpucloud-output", daemon=True)
        self._fd = fd
        self._output = output
        self._rest = b""

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._fd)
        since = time.monotonic()
        while True:
            if poll.poll(1000):
                data = os.read(self._fd, MAX_LINE)
                if not data:
                    break
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._output.line(line)
                if lines:
                    since = time.monotonic()
            if len(self._rest) >= MAX_LINE or (
                b"\r" in self._rest and time.monotonic() - since > _UNENDED
            ):
                # a progress bar that rewrites its line for hours, or no text at all
                self._output.line(self._rest)
                self._rest, since = b"", time.monotonic()
        if self._rest:
            self._output.line(self._rest)
        os.close(self._fd)
