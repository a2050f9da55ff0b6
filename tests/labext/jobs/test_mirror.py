"""Checkpoints in the bucket: whole ones only, whatever is being written meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gpucloud_labext.jobs.store import Store
from gpucloud_labext.replica.mirror import Mirror, Unsettled


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"jobs/{request.node.name}/checkpoints/"


class Training(threading.Thread):
    """Writes checkpoints as TensorFlow's CheckpointManager does, keeping one, until told to end.

    Many passes of a mirror meet a change and many do not, however slow this machine is.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.ending = threading.Event()
        self.step = 0
        self.pause = 0.03  # seconds between two checkpoints, at most

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around one pass."""
        began = time.monotonic()
        yield
        self.pause = max(0.03, 3 * (time.monotonic() - began))

    def run(self) -> None:
        chance = random.Random(3)  # noqa: S311
        while not self.ending.is_set():
            self.step += 1
            name = f"ckpt-{self.step}"
            parts = self.folder / f"{name}_temp"
            parts.mkdir()
            for part in ("data-00000-of-00001", "index"):
                (parts / part).write_text(f"{part} of {self.step}")
                time.sleep(chance.random() * 0.01)
                (parts / part).rename(self.folder / f"{name}.{part}")
            parts.rmdir()
            fresh = self.folder / "checkpoint.tmp1234"
            fresh.write_text(name)
            fresh.rename(self.folder / "checkpoint")
            for old in self.folder.glob(f"ckpt-{self.step - 1}.*"):
                old.unlink()
            self.ending.wait(chance.random() * self.pause)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    training = Training(folder)
    training.start()
    yield training
    training.ending.set()
    training.join()


def whole(names: dict[str, str]) -> bool:
    """Whether what `checkpoint` names is there, complete."""
    newest = names.get("checkpoint")
    if newest is None:
        return True
    step = newest.removeprefix("ckpt-")
    parts = ("data-00000-of-00001", "index")
    return all(names.get(f"{newest}.{part}") == f"{part} of {step}" for part in parts)


def in_bucket(bucket: Store, prefix: str) -> dict[str, str]:
    found = {e.key.removeprefix(prefix): bucket.get(e.key) for e in bucket.entries(prefix)}
    return {name: data.decode() for name, data in found.items() if data is not None}


def in_folder(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_the_bucket_always_has_a_whole_checkpoint(
    bucket: Store, prefix: str, training: Training
) -> None:
    """As if the replica were lost after any pass."""
    mirror = Mirror(bucket, prefix, training.folder, 1.0)
    seen = set()
    deadline = time.monotonic() + 120
    while len(seen) < 8:
        assert time.monotonic() < deadline
        with training.watched():
            mirror.up()
        names = in_bucket(bucket, prefix)
        assert whole(names), names
        seen.add(names.get("checkpoint"))
    training.ending.set()
    training.join()
    assert mirror.up(final=True)
    assert in_bucket(bucket, prefix) == in_folder(training.folder)


def test_an_evaluator_always_reads_a_whole_checkpoint(
    bucket: Store, prefix: str, training: Training, tmp_path: Path
) -> None:
    sending = Mirror(bucket, prefix, training.folder, 1.0)
    reading = Mirror(bucket, prefix, tmp_path / "evaluator", 1.0)
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            sending.up()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        seen = set()
        deadline = time.monotonic() + 120
        while len(seen) < 5:
            assert time.monotonic() < deadline
            with training.watched(), suppress(Unsettled):  # as `keep_down` does
                reading.down()
            names = in_folder(reading.folder)
            assert whole(names), names
            seen.add(names.get("checkpoint"))
    finally:
        over.set()
        sender.join()


def test_a_restart_begins_with_what_the_bucket_has(
    bucket: Store, prefix: str, tmp_path: Path
) -> None:
    first = Mirror(bucket, prefix, tmp_path / "first", 1.0)
    (first.folder / "deep").mkdir()
    (first.folder / "deep" / "model.bin").write_text("old")
    assert first.up(final=True)
    second = Mirror(bucket, prefix, tmp_path / "second", 1.0)
    (second.folder / "left over").touch()
    assert second.reset() == 1
    assert (second.folder / "deep" / "model.bin").read_text() == "old"
    assert not (second.folder / "left over").exists()
    (second.folder / "deep" / "model.bin").unlink()
    assert second.up(final=True)
    assert in_bucket(bucket, prefix) == {}


def test_a_folder_that_is_being_filled_does_not_look_deleted(
    bucket: Store, prefix: str, tmp_path: Path
) -> None:
    """The lead's mirror keeps sending while a new start of the script is prepared."""
    mirror = Mirror(bucket, prefix, tmp_path / "files", 1.0)
    for number in range(20):
        (mirror.folder / f"ckpt-{number}.index").write_text(str(number))
    assert mirror.up(final=True)
    before = in_bucket(bucket, prefix)
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            mirror.up()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(5):
            assert mirror.reset() == 20
    finally:
        over.set()
        sender.join()
    assert in_bucket(bucket, prefix) == before


def test_a_store_that_fails_half_way_loses_nothing(
    bucket: Store, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(bucket, prefix, tmp_path / "files", 1.0)
    (mirror.folder / "ckpt-1.index").write_text("one")
    assert mirror.up(final=True)
    with monkeypatch.context() as broken:
        broken.setattr(Store, "get_file", _away)
        with pytest.raises(ConnectionResetError):
            mirror.reset()
    assert mirror.up(final=True)
    assert in_bucket(bucket, prefix) == {"ckpt-1.index": "one"}


def _away(*_: object) -> None:
    raise ConnectionResetError


def test_what_is_being_written_waits(bucket: Store, prefix: str, tmp_path: Path) -> None:
    mirror = Mirror(bucket, prefix, tmp_path / "files", 1.0)
    (mirror.folder / "model.pt").write_text("half")
    assert mirror.up() and in_bucket(bucket, prefix) == {}
    assert mirror.up(final=True) and in_bucket(bucket, prefix) == {"model.pt": "half"}


def test_logs_grow_and_are_never_deleted(bucket: Store, prefix: str, tmp_path: Path) -> None:
    mirror = Mirror(bucket, prefix, tmp_path / "logs", 1.0, grows=True)
    events = mirror.folder / "events.1"
    events.write_text("one")
    assert mirror.up() and in_bucket(bucket, prefix) == {"events.1": "one"}
    events.write_text("one two")
    assert mirror.up() and in_bucket(bucket, prefix) == {"events.1": "one two"}
    events.unlink()
    assert mirror.up() and in_bucket(bucket, prefix) == {"events.1": "one two"}
