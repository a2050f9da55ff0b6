"""Container processes without any Kubernetes: real processes, the shim, adoption, logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpucloud_spawner.localcluster.kubelet import shim
from gpucloud_spawner.localcluster.kubelet.logs import LogOptions, read_log, tail
from gpucloud_spawner.localcluster.kubelet.runtime import (
    BOOT_ID,
    Exit,
    Instance,
    StartError,
    alive,
    descendants,
    memory_of,
)

ENV = {"PATH": os.defpath}


class Box:
    """Starts instances in a directory and leaves no process behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = asyncio.Event()
        self.made: list[Instance] = []

    def instance(self, name: str = "0") -> Instance:
        made = Instance(self.path / name, self.ended.set)
        self.made.append(made)
        return made

    async def run(self, script: str, env: dict[str, str] | None = None) -> Instance:
        instance = self.instance()
        await instance.start(["sh", "-c", script], env or ENV, self.path)
        return instance

    async def exit(self, instance: Instance) -> Exit:
        async with asyncio.timeout(10):
            await self.ended.wait()
        assert instance.exit is not None
        return instance.exit


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    made = Box(tmp_path)
    yield made
    for instance in made.made:
        if instance.running:
            await instance.stop(0)


async def log_of(instance: Instance, **options: Any) -> str:
    path = instance.directory / "log"
    pieces = read_log(path, LogOptions(**options), lambda: instance.running)
    return b"".join([piece async for piece in pieces]).decode()


async def logged(instance: Instance, text: str) -> str:
    """Waits until the log has this text."""
    async with asyncio.timeout(10):
        while text not in (log := await log_of(instance)):
            await asyncio.sleep(0.01)
    return log


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 0", 0, "Completed"),
        ("exit 3", 3, "Error"),
        ("kill -KILL $$", 137, "Error"),
        ("kill -SEGV $$", 139, "Error"),
    ],
)
async def test_exit_codes(box: Box, script: str, code: int, reason: str) -> None:
    instance = await box.run(script)
    ended = await box.exit(instance)
    assert (ended.code, ended.reason) == (code, reason)
    assert ended.started_at <= ended.finished_at
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", ended.finished_at)


async def test_the_environment_is_exactly_what_is_given(box: Box) -> None:
    instance = box.instance()
    await instance.start(["env"], {"PATH": os.defpath, "A": "x y"}, box.path)
    await box.exit(instance)
    assert (await log_of(instance)).splitlines() == [f"PATH={os.defpath}", "A=x y"]


async def test_no_secret_of_the_environment_is_on_a_command_line_or_the_disk(box: Box) -> None:
    instance = await box.run("sleep 60", ENV | {"KEY": "hunter2"})
    cmdlines = [" ".join(p.cmdline()) for p in psutil.Process(instance.shim).children()]
    cmdlines.append(" ".join(psutil.Process(instance.shim).cmdline()))
    assert not any("hunter2" in line for line in cmdlines)
    for path in box.path.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes()
    await instance.stop(0)


async def test_signals_are_as_in_a_fresh_process(box: Box) -> None:
    # A shell's background job ignores SIGINT; a Jupyter kernel must be able to be interrupted.
    instance = box.instance()
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    await instance.start([sys.executable, "-c", code], ENV, box.path)
    await box.exit(instance)
    assert await log_of(instance) == "True\n"


async def test_what_a_container_leaves_behind_is_killed(box: Box) -> None:
    # A daemon in a session of its own, as Jupyter kernels are, whose parent is gone.
    script = "(setsid sh -c 'echo daemon $$; trap \"\" TERM HUP; while :; do sleep 60; done' &) ; "
    os.mkfifo(box.path / "fifo")
    instance = await box.run(script + "read x < fifo")
    await logged(instance, "daemon")
    (box.path / "fifo").write_text("end\n")
    await box.exit(instance)
    match = re.search(r"daemon (\d+)", await log_of(instance))
    assert match is not None
    assert not psutil.pid_exists(int(match[1]))


async def test_stop_is_sure_and_not_hasty(box: Box) -> None:
    polite = await box.run("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done")
    await logged(polite, "up")
    await polite.stop(10)
    assert polite.exit is not None
    assert polite.exit.code == 7
    assert await log_of(polite) == "up\nbye\n"

    box.ended.clear()
    stubborn = box.instance("1")
    script = "trap '' TERM; echo up; while :; do sleep 0.02; done"
    await stubborn.start(["sh", "-c", script], ENV, box.path)
    await logged(stubborn, "up")
    started = asyncio.get_running_loop().time()
    await stubborn.stop(0.5)
    assert stubborn.exit is not None
    assert stubborn.exit.code == 137
    assert 0.5 <= asyncio.get_running_loop().time() - started < 3


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
        ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
async def test_commands_that_cannot_start(box: Box, command: str, message: str) -> None:
    with pytest.raises(StartError) as caught:
        await box.instance().start([command], ENV, box.path)
    assert str(caught.value) == message


async def test_a_file_that_is_no_program(box: Box) -> None:
    program = box.path / "broken"
    program.write_bytes(b"\x00\x01")
    program.chmod(0o755)
    instance = box.instance()
    with pytest.raises(StartError, match="exec format error"):
        await instance.start([str(program)], ENV, box.path)
    assert instance.exit is not None
    assert (instance.exit.code, instance.exit.reason) == (128, "StartError")


async def test_adoption_sees_the_true_exit_code(box: Box) -> None:
    os.mkfifo(box.path / "fifo")
    first = await box.run("read x < fifo; exit 5")
    first.release()  # what the death of a kubelet leaves: nobody watches any more
    second = box.instance()
    second.adopt()
    assert second.running
    assert (second.pid, second.started_at) == (first.pid, first.started_at)
    (box.path / "fifo").write_text("end\n")
    assert (await box.exit(second)).code == 5
    assert first._popen is not None
    first._popen.wait()  # a dead kubelet's children are init's to reap

    third = box.instance()
    third.adopt()
    assert not third.running
    assert third.exit == second.exit


async def test_adoption_after_a_reboot_or_with_a_recycled_pid(box: Box) -> None:
    directory = box.path / "0"
    directory.mkdir()
    # The pid is alive, but is another process than the one that was started then.
    boot = BOOT_ID.read_text().strip()
    (directory / "shim").write_text(f"{os.getpid()} 1 {boot}")
    (directory / "started").write_text(f"{os.getpid()} 1 2026-01-01T00:00:00.000000000Z")
    instance = box.instance()
    instance.adopt()
    assert not instance.running
    assert instance.exit == Exit(255, "Unknown", "", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    instance.kill()  # must not reach this test's own process


async def test_a_killed_shim_takes_its_container_along(box: Box) -> None:
    instance = await box.run("trap '' TERM HUP; sleep 60")
    pid, ticks = instance.pid, psutil.Process(instance.pid)
    os.kill(instance.shim, signal.SIGKILL)
    ended = await box.exit(instance)
    assert (ended.code, ended.reason) == (255, "Unknown")
    with contextlib.suppress(psutil.NoSuchProcess):
        ticks.wait(5)
    assert not psutil.pid_exists(pid)


async def test_memory_is_that_of_the_whole_tree(box: Box) -> None:
    code = "x = bytearray(50_000_000); print('up', flush=True); import time; time.sleep(60)"
    script = f'{sys.executable} -c "{code}" & wait'
    instance = await box.run(script)
    await logged(instance, "up")
    tree = descendants(instance.shim)
    assert 50_000_000 < memory_of(tree, 10**12) < 150_000_000
    assert memory_of(tree, 1) > 45_000_000  # the exact way
    await instance.stop(0)


@pytest.mark.parametrize("root", [0, 1, -1])
def test_a_tree_of_everything_is_refused(root: int) -> None:
    with pytest.raises(ValueError, match="not one of ours"):
        descendants(root)


async def test_an_instance_that_never_ran_has_nothing_to_kill(box: Box) -> None:
    instance = box.instance()
    instance.kill()
    instance.kill_tree()
    await instance.stop(0)
    instance.adopt()
    instance.kill_tree()
    assert instance.exit is not None


def test_alive_knows_processes_by_their_start() -> None:
    me = os.getpid()
    assert alive(me, shim.start_ticks(me))
    assert not alive(me, "1")


async def test_log_options(box: Box) -> None:
    instance = await box.run("echo one; echo two >&2; printf three")
    await box.exit(instance)
    assert sorted((await log_of(instance)).split()) == ["one", "three", "two"]
    assert await log_of(instance, tail_lines=0) == ""
    assert len((await log_of(instance, tail_lines=2)).split()) == 2
    assert await log_of(instance, limit_bytes=2) == (await log_of(instance))[:2]
    stamped = await log_of(instance, timestamps=True, tail_lines=1)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", stamped)
    later = datetime.now(UTC) + timedelta(seconds=5)
    assert await log_of(instance, since=later) == ""
    assert await log_of(instance, since=later - timedelta(minutes=1)) != ""
    assert tail(instance.directory / "log", lines=1) in ("three", "two\n", "one\n")


async def test_following_a_log(box: Box) -> None:
    os.mkfifo(box.path / "fifo")
    instance = await box.run("echo one; read x < fifo; echo $x; exit 0")
    seen: list[bytes] = []
    async with asyncio.timeout(10):
        async for piece in read_log(
            instance.directory / "log", LogOptions(follow=True), lambda: instance.running
        ):
            seen.append(piece)
            if b"".join(seen) == b"one\n":
                (box.path / "fifo").write_text("two\n")
    assert b"".join(seen) == b"one\ntwo\n"


async def test_long_lines_and_rotation(box: Box, tmp_path: Path) -> None:
    instance = await box.run("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")
    await box.exit(instance)
    assert await log_of(instance) == "x" * 40000 + "\nend\n"

    reader, writer = os.pipe()
    written = shim.Log(str(tmp_path / "log"))
    written.add(reader, "stdout")
    line = b"y" * 9999 + b"\n"
    for _ in range(2200):  # 22 MB
        os.write(writer, line)
        written.read(reader)
    os.close(writer)
    sizes = [(tmp_path / name).stat().st_size for name in ("log", "log.1")]
    assert all(size < shim.LOG_BYTES + 20000 for size in sizes)
    text = b"".join([p async for p in read_log(tmp_path / "log", LogOptions(), lambda: False)])
    assert set(text.splitlines()) == {line.strip()}
    os.close(reader)
    os.close(written.fd)


async def test_a_start_that_is_cut_short_can_still_be_ended(box: Box) -> None:
    """The node ends in the moment in which a container starts."""
    instance = box.instance()
    start = asyncio.create_task(instance.start(["sleep", "60"], ENV, box.path))
    async with asyncio.timeout(10):
        while not (instance.directory / "shim").exists():
            await asyncio.sleep(0)
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    assert start.cancelled()
    assert instance.running
    await instance.stop(0.5)
    assert not instance.running
    assert not psutil.pid_exists(instance.shim)


def test_the_tail_of_a_large_log(tmp_path: Path) -> None:
    stamp = "2024-01-01T00:00:00.000000000Z stdout F"
    path = tmp_path / "log"
    path.write_text("".join(f"{stamp} line {number}\n" for number in range(200_000)))
    assert tail(path) == "".join(f"line {number}\n" for number in range(199_920, 200_000))
    path.write_text(f"{stamp} {'x' * 400_000}\n{stamp} end\n")
    assert tail(path) == "end\n"
    path.write_bytes(f"{stamp} a".encode() + b"\xff\n")
    assert tail(path) == "a\ufffd\n"
