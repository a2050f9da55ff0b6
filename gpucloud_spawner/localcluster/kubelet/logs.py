"""Reading a container's log files, as `kubectl logs` asks for them.

The shim writes them, in the CRI's format; see `shim`.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

_NUMBER = re.compile("[0-9]{1,18}")
_LONGEST = 10**9  # seconds: longer ago than any log, and within the calendar
TAIL_BYTES = 256 * 1024
POLL_SECONDS = 0.15  # only while somebody follows


@dataclass(frozen=True)
class LogOptions:
    """PodLogOptions, in their query string's terms."""

    follow: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    timestamps: bool = False
    since: datetime | None = None

    @classmethod
    def from_query(cls, query: dict[str, str]) -> LogOptions:
        """ValueError for what cannot be read."""

        def number(name: str) -> int | None:
            text = query.get(name)
            if text and not _NUMBER.fullmatch(text):
                raise ValueError(f"{name} must be a whole number and not negative")
            return int(text) if text else None

        since = None
        if query.get("sinceTime"):
            since = datetime.fromisoformat(query["sinceTime"])
            if since.tzinfo is None:
                raise ValueError("sinceTime must name its time zone")
        elif (ago := number("sinceSeconds")) is not None:
            since = datetime.now(UTC) - timedelta(seconds=min(ago, _LONGEST))
        return cls(
            follow=truth(query.get("follow")),
            tail_lines=number("tailLines"),
            limit_bytes=number("limitBytes"),
            timestamps=truth(query.get("timestamps")),
            since=since,
        )


def truth(text: str | None) -> bool:
    """A boolean as Go reads it."""
    return (text or "").lower() in ("1", "t", "true")


def _render(line: bytes, options: LogOptions) -> bytes:
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 4:
        return b""
    stamp, _, tag, text = parts
    if options.since is not None and _moment(stamp) < options.since:
        return b""
    head = stamp + b" " if options.timestamps else b""
    return head + text + (b"\n" if tag == b"F" else b"")


def _moment(stamp: bytes) -> datetime:
    # fromisoformat takes at most microseconds; lines carry nanoseconds.
    return datetime.fromisoformat(stamp[:26].decode() + "+00:00")


def _complete_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file from where it stands; a line still being written stays for later."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(position)
            return
        yield line


def _existing(path: Path, options: LogOptions, file: IO[bytes] | None) -> list[bytes]:
    def lines() -> Iterator[bytes]:
        rotated = path.with_name(path.name + ".1")
        if rotated.exists():
            with rotated.open("rb") as old:
                yield from _complete_lines(old)
        if file is not None:
            yield from _complete_lines(file)

    rendered = (text for line in lines() if (text := _render(line, options)))
    if options.tail_lines is not None:
        return list(deque(rendered, maxlen=options.tail_lines))
    return list(rendered)


async def read_log(
    path: Path, options: LogOptions, running: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The log in pieces; with `follow` until the container has ended."""
    left = options.limit_bytes if options.limit_bytes is not None else float("inf")
    file = path.open("rb") if path.exists() else None
    try:
        # Off the loop: up to two files of 10 MiB are parsed line by line.
        pieces = await asyncio.to_thread(_existing, path, options, file)
        while True:
            text = b"".join(pieces)
            if text:
                yield text[: int(left)] if left < len(text) else text
                left -= len(text)
            if not options.follow or left <= 0:
                return
            alive = running()
            if file is None:
                file = path.open("rb") if path.exists() else None
            pieces = [_render(line, options) for line in _complete_lines(file)] if file else []
            if pieces:
                continue
            if file is not None and path.exists() and path.stat().st_ino != _inode(file):
                file.close()  # rotated: go on with the new file
                file = path.open("rb")
                continue
            if not alive:
                return
            await asyncio.sleep(POLL_SECONDS)
    finally:
        if file is not None:
            file.close()


def _inode(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_ino


def head(path: Path, size: int) -> str:
    """The beginning of a file that a container may have replaced by anything: a huge one, a pipe
    that nobody writes to, a link to a device. Only what an ordinary file holds is read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        ordinary = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, size).decode(errors="replace") if ordinary else ""
    finally:
        os.close(fd)


def tail(path: Path, lines: int = 80, size: int = 2048) -> str:
    """The end of a log as a termination message: FallbackToLogsOnError."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        # Every line has a stamp before its text: this surely holds `size` bytes of text, or all
        # the lines that are asked for if they are short.
        if file.seek(0, os.SEEK_END) > TAIL_BYTES:
            file.seek(-TAIL_BYTES, os.SEEK_END)
            file.readline()
        else:
            file.seek(0)
        rendered = (text for line in _complete_lines(file) if (text := _render(line, LogOptions())))
        text = b"".join(deque(rendered, maxlen=lines))
    return text[-size:].decode(errors="replace")
