"""Reading a job's log from the bucket while it is written; hints for known traces."""

from __future__ import annotations

import io
import random
import textwrap
import threading

import pytest

from gpucloud_labext.jobs import logfiles
from gpucloud_labext.jobs.logs import Reader, last_lines
from gpucloud_labext.jobs.store import Store
from gpucloud_labext.replica import hints
from gpucloud_labext.replica import output as output_module
from gpucloud_labext.replica.output import Output


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"jobs/{request.node.name}/"


def test_nothing_is_lost_and_nothing_told_twice(
    bucket: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is sent when, over full parts and restarts, and whenever it is looked at."""
    monkeypatch.setattr(output_module, "PART_BYTES", 300)
    chance = random.Random(7)  # noqa: S311
    reader, said, heard = Reader(bucket, prefix), [], []
    for start in range(3):
        output = Output(bucket, prefix, "worker-1", 1.0, io.BytesIO())
        output.begin()
        for number in range(60):
            line = f"{start}.{number} " + "ä" * chance.randrange(20)
            output.line(line.encode())
            said.append(line)
            if chance.random() < 0.3:
                output.send()
            if chance.random() < 0.3:
                heard += [line.text for line in reader.new()]
        output.send()
    heard += [line.text for line in reader.new()]
    assert heard == said
    assert list(reader.new()) == [] == list(reader.rest())
    keys = [entry.key for entry in bucket.entries(prefix)]
    assert len(keys) > 6
    assert logfiles.parts(prefix, keys)["worker-1"] == [*range(len(keys))]


def test_replicas_are_told_apart(bucket: Store, prefix: str) -> None:
    for label in ("worker-1", "worker-10", "ps-0"):
        bucket.put(logfiles.part_key(prefix, label, 0), f"of {label}\nhalf".encode())
    bucket.put(f"{prefix}logs/notes.txt", b"not a log")
    reader = Reader(bucket, prefix)
    assert sorted(map(str, reader.new())) == [
        "[ps-0] of ps-0",
        "[worker-10] of worker-10",
        "[worker-1] of worker-1",
    ]
    assert len(list(reader.rest())) == 3
    assert [line.text for line in Reader(bucket, prefix, "worker-1").new()] == ["of worker-1"]


def test_the_last_lines_are_read_from_the_end(
    bucket: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "PART_BYTES", 100)
    output = Output(bucket, prefix, "worker-0", 1.0, io.BytesIO())
    output.begin()
    said = [f"line {number} " + "ä" * (number % 20) for number in range(60)]
    for line in said:
        output.line(line.encode())
        output.send()
    bucket.put(logfiles.part_key(prefix, "ps-0", 0), b"served\nhalf")
    keys = [entry.key for entry in bucket.entries(prefix)]
    for count in (1, 7, 60, 1000):
        told = [line.text for line in last_lines(bucket, prefix, "worker-0", count)]
        assert told == said[-count:]
    assert list(last_lines(bucket, prefix, "", 0)) == []
    both = [str(line) for line in last_lines(bucket, prefix, "", 1)]
    assert both == ["[ps-0] half", f"[worker-0] {said[-1]}"]
    read: list[str] = []
    get = bucket.get
    bucket.get = lambda key: [read.append(key), get(key)][1]  # type: ignore[method-assign,func-returns-value]
    assert len(list(last_lines(bucket, prefix, "worker-0", 3))) == 3
    assert len(read) < len(keys) / 3


def test_a_store_that_is_away_gets_the_lines_later(bucket: Store, prefix: str) -> None:
    output = Output(Store("nowhere", "http://127.0.0.1:1"), prefix, "worker-0", 1.0, io.BytesIO())
    output.line(b"before")
    output._store, away = bucket, output._store
    output.send()
    output._store = away
    away.put = _refused  # type: ignore[method-assign]
    output.line(b"meanwhile")
    output.send()
    output._store = bucket
    output.send()
    assert [line.text for line in Reader(bucket, prefix).new()] == ["before", "meanwhile"]


def test_a_store_that_is_away_at_a_restart_keeps_the_log_before_it(
    bucket: Store, prefix: str
) -> None:
    first = Output(bucket, prefix, "worker-0", 1.0, io.BytesIO())
    first.begin()
    first.line(b"first start")
    first.send()
    again = Output(Store("nowhere", "http://127.0.0.1:1"), prefix, "worker-0", 1.0, io.BytesIO())
    again._store.entries = _refused  # type: ignore[method-assign, assignment]
    again.begin()
    again.line(b"second start")
    again.send()
    again._store = bucket
    again.send()
    again.line(b"and on")
    again.send()
    told = [line.text for line in Reader(bucket, prefix).new()]
    assert told == ["first start", "second start", "and on"]


def test_of_two_that_send_at_once_the_later_one_has_the_last_word(
    bucket: Store, prefix: str
) -> None:
    """The end of a replica does not wait for the thread that sends every second."""
    output = Output(bucket, prefix, "worker-0", 1.0, io.BytesIO())
    output.begin()
    put, slow, go_on = bucket.put, threading.Event(), threading.Event()

    def slowly(key: str, data: bytes, content_type: str = "") -> None:
        if not slow.is_set():
            slow.set()
            go_on.wait(1.0)
        put(key, data, content_type)

    output._store = Store(bucket.name)
    output._store.put = slowly  # type: ignore[method-assign]
    output.line(b"one")
    every_second = threading.Thread(target=output.send)
    every_second.start()
    slow.wait()
    output.line(b"the last words")
    at_the_end = threading.Thread(target=output.send)
    at_the_end.start()
    at_the_end.join(0.2)  # were it not for the lock, it would be done
    go_on.set()
    every_second.join()
    at_the_end.join()
    told = [line.text for line in Reader(bucket, prefix).new()]
    assert told == ["one", "the last words"]


def _refused(*_: object, **__: object) -> None:
    raise ConnectionRefusedError


# As Keras 3.15 and TensorFlow 2.21 said it, shortened in their middle.
MIRRORED = """
File "/gpucloud-job/code/train.py", line 31, in <module>
    history = model.fit(
              ^^^^^^^^^^
  File "/site-packages/keras/src/utils/traceback_utils.py", line 122, in error_handler
    raise e.with_traceback(filtered_tb) from None
}) with an unsupported type (<class 'tensorflow.python.distribute.values.PerReplica'>) to a Tensor.
"""
SERVERS = """
File "/gpucloud-job/code/train.py", line 40, in <module>
    history = model.fit(
              ^^^^^^^^^^
  File "/site-packages/keras/src/utils/traceback_utils.py", line 122, in error_handler
    raise e.with_traceback(filtered_tb) from None
  File "/site-packages/tensorflow/python/distribute/input_lib.py", line 1207, in cardinality
ValueError: Cannot get the cardinality of a dataset that is not built
"""
PLAIN = """
  File "train.py", line 3, in <module>
    history = model.fit(x, y)
  File "/site-packages/keras/src/utils/traceback_utils.py", line 122, in error_handler
ValueError: Input 0 of layer "dense" is incompatible with the layer
"""


def test_hints_for_what_is_known() -> None:
    for trace in (MIRRORED, SERVERS):
        assert hints.find(textwrap.dedent(trace).splitlines()) == hints.KERAS_FIT
    assert hints.find(PLAIN.splitlines()) is None
    assert hints.find(["MemoryError"]) == hints.OUT_OF_MEMORY
    assert hints.find([]) is None
