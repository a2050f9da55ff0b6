"""A job's life on a real cluster: launched once, followed, over, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from gpucloud_spawner.metering.observe import GPUResources, read_pod

from .world import PATIENCE, SERVE, World, script


async def test_a_job_runs_to_its_success_and_leaves_its_record(world: World) -> None:
    world.command = script(rest="echo hello from $GPUCLOUD_ROLE; exit 0")
    await world.start()
    job = world.submit(worker=2)
    over = await world.over(job)
    assert (over.state, over.reason, over.failure) == ("succeeded", "", None)
    assert [(r.name, r.state, r.exit_code) for r in over.replicas] == [
        ("worker-0", "succeeded", 0),
        ("worker-1", "succeeded", 0),
    ]
    assert over.launched_at is not None
    assert over.started_at is not None
    assert over.ended_at is not None
    # what has ended stays to be looked at for a while
    assert len(await world.items("pods", job)) == 2


async def test_jobs_are_counted_by_state_as_they_change(world: World) -> None:
    def counted(state: str) -> float:
        return world.registry.get_sample_value("gpucloud_jobs", {"state": state}) or 0

    async def counts(**wanted: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while any(counted(state) != number for state, number in wanted.items()):
                await asyncio.sleep(0.02)

    world.settings = replace(world.settings, resync=600)
    world.command = script(rest=SERVE)
    await world.start()
    job = world.submit(worker=1)
    await counts(running=1, queued=0)
    world.records.request_stop(job.id, "Enough.")
    await counts(running=0, stopped=1)
    world.leads = False  # another service counts now
    await counts(stopped=0)


async def test_the_objects_of_a_job_go_after_a_while(world: World) -> None:
    world.settings = replace(world.settings, ttl=0.0)
    await world.start()
    job = world.submit(worker=1, evaluator=1)
    closed = await world.until(job, lambda r: r.closed_at is not None)
    assert closed.state == "succeeded"
    await world.nothing_left()


async def test_servers_end_with_the_result(world: World) -> None:
    world.command = script(chief_0=f"{world.until_let_go}; exit 0", rest=SERVE)
    await world.start()
    job = world.submit(chief=1, worker=1, ps=1, evaluator=1)
    await world.running(job)
    world.let_go()
    over = await world.over(job)
    assert over.state == "succeeded"
    assert {r.state for r in over.replicas} == {"succeeded"}
    await world.released(job)
    # the chief's pod is still there, those that were ended are not
    roles = {p["metadata"]["labels"]["gpucloud.io/role"] for p in await world.items("pods", job)}
    assert "chief" in roles


async def test_without_a_chief_all_workers_decide(world: World) -> None:
    late = f"{world.until_let_go}; exit 0"
    world.command = script(worker_0="exit 0", worker_1=late, rest=SERVE)
    await world.start()
    job = world.submit(worker=2, evaluator=1)
    first = await world.until(job, lambda r: r.replicas[0].state == "succeeded")
    assert not first.is_over
    world.let_go()
    assert (await world.over(job)).state == "succeeded"


async def test_the_replicas_know_their_places(world: World) -> None:
    world.command = ("sh", "-c", "env")
    controller = await world.start()
    job = world.submit(chief=1, worker=2, ps=1, env={"COST": "$5 $(HOME) $$", "B": "x"})
    await world.over(job)
    text = b""
    async for chunk in world.logs(controller).stream(world.record(job), "chief-0", False, None):
        text += chunk
    assert b"GPUCLOUD_ROLE=chief" in text
    env = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
    assert env["COST"] == "$5 $(HOME) $$"  # as written, not as Kubernetes would expand it
    where = f"{job.id}.default.svc"
    cluster = json.loads(env["GPUCLOUD_CLUSTER"])
    assert cluster["worker"] == [
        f"{job.id}-worker-{n}.{where}:{job.port + 1 + n}" for n in range(2)
    ]
    assert env["GPUCLOUD_RENDEZVOUS"] == f"{job.id}-chief-0.{where}:{job.port + 4}"
    assert env["HOSTNAME"] == f"{job.id}-chief-0"
    assert env["JOB_COMPLETION_INDEX"] == "0"
    assert env["GPUCLOUD_COMMAND"] == '["python", "train.py"]'
    assert env["GPUCLOUD_JOB_PREFIX"] == f"jobs/{job.id}/"


async def test_what_the_meter_reads_is_on_every_pod(world: World) -> None:
    world.command = script(rest="sleep 60")
    await world.start()
    job = world.submit(worker=1, ps=1, gpus=1, user="Ada Lovelace")
    await world.running(job)
    facts = {f.pod: f for f in (read_pod(p, GPUResources()) for p in await world.items("pods"))}
    for name, fact in facts.items():
        assert (fact.owner, fact.team, fact.profile) == ("Ada Lovelace", "vision", "small")
        assert (fact.component, fact.job) == ("job", job.id)
        assert fact.price_nano == 1_500_000_000
        assert fact.gpus == (1 if "-worker-" in name else 0)


async def test_a_stopped_job_is_gone_at_once(world: World) -> None:
    world.command = script(rest=SERVE)
    controller = await world.start()
    job = world.submit(worker=2)
    await world.running(job)
    world.records.request_stop(job.id, "Stopped by you.")
    controller.wake(job.id)
    over = await world.over(job)
    assert (over.state, over.reason) == ("stopped", "Stopped by you.")
    await world.nothing_left(job)
    assert (await world.until(job, lambda r: r.closed_at is not None)).state == "stopped"


async def test_a_job_that_is_stopped_before_its_launch_never_starts(world: World) -> None:
    job = world.submit(worker=1)
    world.records.request_stop(job.id, "Stopped by you.")
    await world.start()
    over = await world.over(job)
    assert (over.state, over.launched_at) == ("stopped", None)
    assert await world.everything(job) == []


async def test_a_service_that_does_not_lead_does_nothing(world: World) -> None:
    world.leads = False
    controller = await world.start()
    job = world.submit(worker=1)
    controller.wake(job.id)
    while not controller.objects.synced:
        await world.cluster.client.list("pods", namespace="default")
    controller.wake(job.id)
    assert await world.everything() == []
    world.leads = True  # the other one is gone
    assert (await world.over(job)).state == "succeeded"
