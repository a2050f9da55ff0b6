"""Logs of all replicas as one text: whole, in order, followed to the end, cancelled in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gpucloud_spawner.jobs.controller import JobController
from gpucloud_spawner.jobs.logs import MAX_LINE, _Reading
from gpucloud_spawner.model.job_record import JobRecord

from .world import SERVE, World, script

COUNT = "for i in 1 2 3; do echo line $i; sleep 0.2; done"


def stream(
    world: World,
    controller: JobController,
    job: JobRecord,
    *,
    replica: str = "",
    follow: bool = False,
    tail: int | None = None,
) -> AsyncIterator[bytes]:
    return world.logs(controller).stream(world.record(job), replica, follow, tail)


async def text_of(source: AsyncIterator[bytes]) -> str:
    async with asyncio.timeout(30):
        return b"".join([chunk async for chunk in source]).decode()


async def test_followed_from_before_its_start_to_its_end(world: World) -> None:
    world.command = script(worker_1=f"sleep 0.7; {COUNT}", rest=COUNT)
    controller = await world.start()
    job = world.submit(worker=2)
    text = await text_of(stream(world, controller, job, follow=True))
    assert world.record(job).is_over
    for name in ("worker-0", "worker-1"):
        mine = [line for line in text.splitlines() if line.startswith(f"[{name}] ")]
        assert mine == [f"[{name}] line {n}" for n in (1, 2, 3)]


async def test_one_replica_without_prefix_and_only_its_tail(world: World) -> None:
    world.command = script(rest="echo a; echo b; printf c")
    controller = await world.start()
    job = world.submit(worker=2)
    await world.over(job)
    assert await text_of(stream(world, controller, job, replica="worker-1")) == "a\nb\nc\n"
    assert await text_of(stream(world, controller, job, replica="worker-1", tail=1)) == "c\n"
    text = await text_of(stream(world, controller, job, tail=2))
    assert sorted(text.splitlines()) == [
        "[worker-0] b",
        "[worker-0] c",
        "[worker-1] b",
        "[worker-1] c",
    ]


async def test_a_replica_that_starts_again_is_followed_on(world: World) -> None:
    again = "f=$GPUCLOUD_TEST/$GPUCLOUD_JOB_ID; [ -e $f ] && { echo second; exit 0; }"
    world.command = script(worker_0=f"{again}; touch $f; echo first; exit 1")
    controller = await world.start()
    job = world.submit(worker=1, retries=1, env={"GPUCLOUD_TEST": str(world.cluster.data)})
    text = await text_of(stream(world, controller, job, follow=True))
    assert text == "[worker-0] first\n[worker-0] second\n"


async def test_who_goes_leaves_no_reader_behind(world: World) -> None:
    world.command = script(rest=SERVE)
    controller = await world.start()
    job = world.submit(worker=2)
    source = stream(world, controller, job, follow=True)
    assert b"serving" in await anext(source)
    before = {task for task in asyncio.all_tasks() if "JobLogs._read" in repr(task)}
    assert before
    await source.aclose()  # type: ignore[attr-defined]
    assert all(task.done() for task in before)


async def test_logs_are_archived_once_a_pod_is_gone(world: World) -> None:
    world.command = script(worker_0=f"{world.until_let_go}; exit 0", rest=SERVE)
    controller = await world.start()
    job = world.submit(worker=1, evaluator=1)
    logs = world.logs(controller)
    running = await world.running(job)
    assert not await logs.are_archived(running, "")
    world.let_go()
    over = await world.over(job)
    await world.released(job)
    assert not await logs.are_archived(over, "worker-0")
    async with asyncio.timeout(20):
        while not await logs.are_archived(over, "evaluator-0"):
            await asyncio.sleep(0.05)
    assert await logs.are_archived(over, "")


async def test_a_log_that_broke_off_is_taken_up_where_it_broke() -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    reading = _Reading(b"> ", lines)
    story = [
        b"2026-11-23T10:00:00.1Z one\n",
        b"2026-11-23T10:00:00.15Z two\n",  # later, whatever the order of the texts is
        b"2026-11-23T10:00:01Z three\n",
    ]
    reading.begin()
    await reading.take(story[0] + story[1][:20])
    reading.begin()  # cut off inside a line: told again from the beginning
    await reading.take(b"".join(story[:2]))
    reading.begin()
    await reading.take(b"".join(story))
    await reading.end()
    assert [lines.get_nowait() for _ in range(lines.qsize())] == [
        b"> one\n",
        b"> two\n",
        b"> three\n",
    ]


async def test_a_line_without_an_end_is_cut() -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    reading = _Reading(b"", lines)
    reading.begin()
    await reading.take(b"2026-11-23T10:00:00Z " + b"x" * MAX_LINE)
    await reading.take(b"y\n2026-11-23T10:00:01Z next\n")
    found = [lines.get_nowait() for _ in range(lines.qsize())]
    assert found == [b"x" * MAX_LINE + b"\n", b"y\n", b"next\n"]
