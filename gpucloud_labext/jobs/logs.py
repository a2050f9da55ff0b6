"""The log of a job, from the user's bucket: while it runs and afterwards, line by line.

The replicas send it there every second (`replica.output`). Read by byte offsets, it loses nothing
and repeats nothing while hub and service restart. Only another user's job, whose bucket is not
readable here, is read through the service.
"""

from __future__ import annotations

import codecs
import os
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..client import Client
from ..errors import LabError
from ..s3.failures import StoreErrors
from .logfiles import part_key, parts
from .store import NoStore, Store, words

if TYPE_CHECKING:
    from .job import Job

POLL_SECONDS = 1.0
QUIET_LOOKS = 3
LAST_WORDS_SECONDS = 30.0
_REPLICA = re.compile(r"[a-z]+-[0-9]{1,4}", re.ASCII)
_PREFIXED = re.compile(r"\[([a-z]+-[0-9]+)\] (.*)", re.DOTALL)


class Line(NamedTuple):
    """One line and the replica that said it; ``replica`` empty: about the job."""

    replica: str
    text: str

    def __str__(self) -> str:
        return f"[{self.replica}] {self.text}" if self.replica else self.text


def read(job: Job, client: Client, replica: str | None, follow: bool) -> Iterator[Line]:
    """Lines as they come. Raises LabError."""
    if replica is not None and not _REPLICA.fullmatch(replica):
        raise LabError(400, "bad_value", f"{replica[:40]!r} is no replica: such as worker-0.")
    if replica is not None and job.replicas and replica not in _names(job):
        raise LabError(404, "no_replica", f"{job.name} has no {replica}, but {_listed(job)}.")
    bucket, _ = job.place("logs")
    if bucket != os.environ.get("GPUCLOUD_S3_BUCKET"):
        return _from_service(job, client, replica, follow)
    try:
        store = Store.of_environment()
    except NoStore as error:
        raise LabError(503, "no_bucket", str(error)) from error
    return _from_bucket(job, store, replica, follow)


def archived(bucket: str, prefix: str, replica: str = "", tail: int | None = None) -> str:
    """The log of a job that is over, from ``bucket``, as the service tells it while it runs.

    ``tail``: only so many last lines of each replica. Raises LabError.
    """
    try:
        store = Store.of_environment({**os.environ, "GPUCLOUD_S3_BUCKET": bucket})
        if tail is None:
            reader = Reader(store, prefix, replica or None)
            lines = [*reader.new(), *reader.rest()]
        else:
            lines = [*last_lines(store, prefix, replica, tail)]
    except StoreErrors as error:
        raise LabError(503, "log_unreadable", f"The log cannot be read: {words(error)}.") from error
    return "".join(f"{line.text if replica else line}\n" for line in lines)


def last_lines(store: Store, prefix: str, replica: str, count: int) -> Iterator[Line]:
    """The last ``count`` lines of each replica. A log may have a gigabyte: its parts are read from
    the newest one backwards. Raises StoreErrors."""
    keys = [entry.key for entry in store.entries(f"{prefix}logs/")]
    for label, numbers in parts(prefix, keys).items():
        if count <= 0 or replica not in ("", label):
            continue
        blocks: list[bytes] = []
        ends = 0
        for number in reversed(numbers):
            block = store.get(part_key(prefix, label, number)) or b""
            blocks.insert(0, block)
            ends += block.count(b"\n")
            if ends > count:
                break
        lines = b"".join(blocks).decode(errors="replace").split("\n")
        if not lines[-1]:  # behind the end of the last one
            lines.pop()
        yield from (Line(label, line) for line in lines[-count:])


def _names(job: Job) -> list[str]:
    return [str(found["name"]) for found in job.replicas]


def _listed(job: Job) -> str:
    return ", ".join(_names(job))


def _from_bucket(job: Job, store: Store, replica: str | None, follow: bool) -> Iterator[Line]:
    prefix = job.place("logs")[1].removesuffix("logs/")
    reader = Reader(store, prefix, replica)
    waits = ""
    while True:
        # looked at before the log, so that nothing is said after the last look at it
        over = not follow or job.is_over
        try:
            yield from reader.new()
        except StoreErrors as error:
            if not follow:
                raise LabError(
                    503, "log_unreadable", f"The log cannot be read: {words(error)}."
                ) from error
            over = False
        if over:
            if follow and job.model["state"] == "stopped":
                yield from _last_words(reader)
            yield from reader.rest()
            return
        if job.model["state"] == "queued" and job.reason not in ("", waits):
            waits = job.reason
            yield Line("", waits)
        time.sleep(POLL_SECONDS)
        try:
            job.refresh()
        except LabError as error:
            if error.status < 500:
                raise


def _last_words(reader: Reader) -> Iterator[Line]:
    """A stopped job is over before its replicas are: what they send within their grace time."""
    until = time.monotonic() + LAST_WORDS_SECONDS
    quiet = 0
    while quiet < QUIET_LOOKS and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        try:
            lines = [*reader.new()]
        except StoreErrors:
            return  # what was told so far is what there is
        quiet = 0 if lines else quiet + 1
        yield from lines


class Reader:
    """The lines of a job's log that were not read yet."""

    def __init__(self, store: Store, prefix: str, replica: str | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._replica = replica
        self._texts: dict[str, _Text] = {}

    def new(self) -> Iterator[Line]:
        """Whole lines since the last call. Raises StoreErrors."""
        sizes = {e.key: e.size for e in self._store.entries(f"{self._prefix}logs/")}
        for label, numbers in parts(self._prefix, sizes).items():
            if self._replica in (None, label):
                text = self._texts.setdefault(label, _Text())
                for number in numbers:
                    key = part_key(self._prefix, label, number)
                    if number < text.part or (number == text.part and sizes[key] <= text.offset):
                        continue
                    yield from (Line(label, line) for line in self._read(text, key, number))

    def _read(self, text: _Text, key: str, number: int) -> list[str]:
        start = text.offset if number == text.part else 0
        data = self._store.get_tail(key, start)
        if data is None:
            return []
        text.part, text.offset = number, start + len(data)
        return text.take(data)

    def rest(self) -> Iterator[Line]:
        """Beginnings of lines whose end never came."""
        for label, text in self._texts.items():
            if text.rest:
                yield Line(label, text.rest)
                text.rest = ""


class _Text:
    """How far one replica's log was read."""

    def __init__(self) -> None:
        self.part, self.offset, self.rest = 0, 0, ""
        # a character may lie across two reads
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, data: bytes) -> list[str]:
        *lines, self.rest = (self.rest + self._decoder.decode(data)).split("\n")
        return lines


def _from_service(job: Job, client: Client, replica: str | None, follow: bool) -> Iterator[Line]:
    params = {"follow": int(follow), **({"replica": replica} if replica else {})}
    with client.stream(f"api/jobs/{job.id}/logs", params) as answer:
        for text in answer.iter_lines():
            match = None if replica else _PREFIXED.fullmatch(text)
            yield Line(match[1], match[2]) if match else Line(replica or "", text)
    if follow and not job.is_over:
        job.wait(10)
