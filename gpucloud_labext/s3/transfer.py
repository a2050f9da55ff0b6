"""Moves planned files with boto3's transfer manager: several at once, big ones in parts.

Nothing is left of a file that did not get through: a download appears under its name once it is
whole, an upload in parts is aborted. Which files, is in `plans`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from s3transfer.exceptions import S3DownloadFailedError, S3UploadFailedError
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber
from tornado.web import HTTPError

from ..contents.bucket import StoreError
from ..contents.errors import explain
from ..contents.models import content_type
from ..errors import LabError
from . import client
from .failures import StoreErrors
from .places import Place
from .plans import Move

MIB = 2**20
CONFIG = {
    "multipart_threshold": 32 * MIB,
    "multipart_chunksize": 16 * MIB,
    "max_request_concurrency": 8,
    "max_submission_concurrency": 4,
    "max_in_memory_upload_chunks": 8,
}
AT_ONCE = 32  # files that are handed over, so that an end is quick however many there are
LOOK_SECONDS = 0.1


@dataclass
class Progress:
    """How far it is; written by the transfer's threads, read by whoever shows it."""

    files: int
    bytes: int
    files_done: int = 0
    bytes_done: int = 0
    began: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, count: int) -> None:
        """So many bytes more; a part that is tried again is taken off first."""
        with self._lock:
            self.bytes_done += count

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class _Count(BaseSubscriber):
    """Counts the bytes of one file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_progress(self, future: Any, bytes_transferred: int, **kwargs: Any) -> None:
        self._progress.add(bytes_transferred)


def transfer(moves: list[Move], show: Callable[[Progress], None]) -> Progress:
    """Move all; ``show`` is called every now and then. Raises LabError, also for Ctrl-C."""
    progress = Progress(len(moves), sum(move.size for move in moves))
    show(progress)
    waiting, running = deque(moves), deque[tuple[Move, Any]]()
    try:
        # at an error or Ctrl-C its end cancels what runs, and waits until all is cleaned up
        with TransferManager(client(), TransferConfig(**CONFIG)) as manager:
            while waiting or running:
                while waiting and len(running) < AT_ONCE:
                    move = waiting.popleft()
                    with in_words(move.source if move.source.is_s3 else move.target):
                        running.append((move, _begin(manager, move, progress)))
                _finish(running, progress)
                show(progress)
    except KeyboardInterrupt:
        raise LabError(
            499,
            "interrupted",
            f"Stopped: {progress.files_done} of {progress.files} files were copied. "
            "Of the others there is nothing.",
        ) from None
    return progress


def _begin(manager: TransferManager, move: Move, progress: Progress) -> Any:
    source, target, watch = move.source, move.target, [_Count(progress)]
    if source.is_s3 and target.is_s3:
        where = {"Bucket": source.bucket, "Key": source.key}
        return manager.copy(where, target.bucket, target.key, subscribers=watch)
    if target.is_s3:
        extra = {"ContentType": content_type(target.key)}
        return manager.upload(str(source.path), target.bucket, target.key, extra, watch)
    target.path.parent.mkdir(parents=True, exist_ok=True)
    return manager.download(source.bucket, source.key, str(target.path), subscribers=watch)


def _finish(running: deque[tuple[Move, Any]], progress: Progress) -> None:
    """Wait a moment, or until the oldest is through; raise what went wrong."""
    deadline = time.monotonic() + LOOK_SECONDS
    while running and not running[0][1].done() and time.monotonic() < deadline:
        time.sleep(0.005)  # in this thread, because Ctrl-C arrives here
    for _ in range(len(running)):
        move, future = running.popleft()
        if not future.done():
            running.append((move, future))
            continue
        with in_words(move.source if move.source.is_s3 else move.target):
            future.result()
        _finish_download(move)
        progress.files_done += 1


def _finish_download(move: Move) -> None:
    """Check its size, and give it the object's time, by which a later sync knows it."""
    if move.target.is_s3:
        return
    path = move.target.path
    if path.stat().st_size != move.size:
        raise LabError(
            409, "s3_changed", f"{move.source} was changed while it was copied; copy it again"
        )
    os.utime(path, (move.modified, move.modified))


@contextmanager
def in_words(place: Place) -> Iterator[None]:
    """The store's errors about ``place`` as LabErrors that help."""
    try:
        yield
    except (S3UploadFailedError, S3DownloadFailedError) as error:
        cause = error.__cause__ or error.__context__ or error
        raise _worded(cause, place) from error
    except (*StoreErrors, StoreError) as error:
        raise _worded(error, place) from error


def _worded(error: BaseException, place: Place) -> LabError:
    assert isinstance(error, Exception)
    if isinstance(error, StoreError):
        return LabError(502, "s3_failed", str(error))
    endpoint = client().meta.endpoint_url
    told: HTTPError = explain(error, str(place), place.bucket, endpoint)
    slug = "s3_" + (told.reason or "failed").lower().removeprefix("s3 ").replace(" ", "_")
    return LabError(told.status_code, slug, told.log_message or "S3 failed.")
