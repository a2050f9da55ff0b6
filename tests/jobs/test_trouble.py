"""What goes wrong: failing scripts, lost replicas and machines, full clusters, vanished objects."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, BatchV1Api, Configuration

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.model.job_record import JobRecord
from gpucloud_spawner.model.profiles import Image
from tests.localcluster.support import pod as plain_pod

from .world import NAMESPACE, PROFILES, SERVE, World, script


async def test_the_replica_that_failed_first_is_named_with_its_last_lines(world: World) -> None:
    trace = "echo one; echo ValueError: no such file >&2; exit 3"
    world.command = script(worker_1=trace, rest=SERVE)
    await world.start()
    job = world.submit(worker=2, ps=1, chief=1)
    over = await world.over(job)
    assert (over.state, over.reason) == ("failed", "worker-1 failed: exit code 3.")
    assert over.failure is not None
    assert (over.failure.replica, over.failure.exit_code) == ("worker-1", 3)
    assert over.failure.lines[-1] == "ValueError: no such file"
    await world.released(job)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("exit 80", "its code could not be fetched"),
        ("exit 84", "the S3 store did not answer"),
        ("exit 82", "the replicas did not all find each other in time"),
        ("kill -9 $$", "it was killed (SIGKILL, exit code 137)"),
    ],
)
async def test_ends_are_told_in_words(world: World, end: str, reason: str) -> None:
    world.command = script(worker_0=end)
    await world.start()
    over = await world.over(world.submit(worker=1, retries=0))
    assert over.reason == f"worker-0 failed: {reason}."


async def test_the_runners_own_words_go_before_ours(world: World) -> None:
    words = '{"reason": "packages", "message": "No matching distribution for nonsense"}'
    said = f"printf '%s' '{words}' > $GPUCLOUD_MOUNTS/dev/termination-log; exit 81"
    world.command = script(worker_0=said)
    await world.start()
    over = await world.over(world.submit(worker=1, retries=5))  # it is not tried again
    assert over.reason == "worker-0 failed: No matching distribution for nonsense."
    assert over.replicas[0].restarts == 0


async def test_a_hint_of_the_runner_is_passed_on(world: World) -> None:
    words = '{"reason": "script_failed", "message": "Trace", "hint": "Use tf_keras."}'
    said = f"printf '%s' '{words}' > $GPUCLOUD_MOUNTS/dev/termination-log; exit 1"
    world.command = script(worker_0=said)
    await world.start()
    over = await world.over(world.submit(worker=1))
    assert over.reason == "worker-0 failed: exit code 1."
    assert over.failure is not None
    assert (over.failure.hint, over.failure.lines) == ("Use tf_keras.", ("Trace",))


async def test_a_lost_worker_starts_again_and_the_job_goes_on(world: World) -> None:
    # the first time it is killed, the second time it ends well
    again = "f=$GPUCLOUD_TEST/$GPUCLOUD_JOB_ID; [ -e $f ] && exit 0; touch $f; kill -9 $$"
    world.command = script(worker_1=again, rest="sleep 3; exit 0")
    await world.start()
    job = world.submit(worker=2, retries=1, env={"GPUCLOUD_TEST": str(world.cluster.data)})
    over = await world.over(job)
    assert over.state == "succeeded"
    assert [(r.name, r.restarts) for r in over.replicas] == [("worker-0", 0), ("worker-1", 1)]


async def test_a_script_that_always_fails_is_tried_as_often_as_asked(world: World) -> None:
    world.command = script(worker_0="echo try; exit 1")
    await world.start()
    job = world.submit(worker=1, retries=2)
    over = await world.over(job)
    assert over.state == "failed"
    assert over.replicas[0].restarts == 2
    assert len(await world.items("pods", job)) == 3


async def test_a_job_has_its_time(world: World) -> None:
    world.command = script(rest=SERVE)
    await world.start()
    job = world.submit(worker=1, timeout_seconds=2)
    over = await world.over(job)
    assert (over.state, over.reason) == ("failed", "It was not done within its time of 2 s.")
    await world.released(job)


async def test_in_a_full_cluster_it_waits_and_says_for_what(world: World) -> None:
    world.command = script(rest="exit 0")
    await world.cluster.started(
        plain_pod(
            "rival",
            "sleep",
            "1000",
            container={"resources": {"limits": {"nvidia.com/gpu": "2"}}},
        )
    )
    await world.start()
    job = world.submit(worker=1, gpus=1, gang_seconds=5)
    waiting = await world.until(job, lambda r: "in use" in r.reason)
    assert waiting.state == "queued"
    assert waiting.reason == (
        "worker-0: Waiting for a free GPU: 2 of 2 are in use; your request is number 1 in the queue"
    )
    # it holds nothing, so it may wait longer than a gang may
    later = time.monotonic() + 6.5
    assert not (await world.until(job, lambda r: time.monotonic() > later)).is_over
    await world.cluster.delete("rival", 0)
    assert (await world.over(job)).state == "succeeded"


async def test_a_gang_that_never_becomes_complete_gives_its_gpus_back(world: World) -> None:
    world.command = script(rest=SERVE)
    await world.start()
    job = world.submit(worker=3, gpus=1, gang_seconds=5)  # there are two GPUs
    over = await world.over(job)
    assert over.state == "failed"
    assert over.reason.startswith("Not all replicas were there within 5 s (worker-")
    assert "Waiting for a free GPU: 2 of 2 are in use" in over.reason
    await world.released(job)
    # and others get them
    world.submit(worker=2, gpus=1)


async def test_a_gang_that_loses_a_replica_has_its_time_again(world: World) -> None:
    """However long it ran: only the time without the replica counts."""
    world.command = script(rest="trap 'exit 1' TERM; while :; do sleep 0.05; done")
    await world.start()
    job = world.submit(worker=2, gpus=1, gang_seconds=8)
    running = await world.running(job)
    began = time.monotonic()
    assert running.incomplete_at is None
    await world.until(job, lambda r: time.monotonic() > began + 9)
    name = (await world.items("pods", job))[0]["metadata"]["name"]
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    status = {"status": {"conditions": [lost]}}
    await world.cluster.client.patch_status("pods", name, status, NAMESPACE)
    await world.cluster.delete(name)
    again = await world.until(
        job, lambda r: 1 in [x.restarts for x in r.replicas] and r.incomplete_at is None
    )
    assert not again.is_over


async def test_an_image_that_there_is_not_is_told(world: World) -> None:
    box = Image(image="registry.invalid/none:1")
    world.profiles = {"small": PROFILES["small"].model_copy(update={"images": {"box": box}})}
    await world.start()
    job = world.submit(worker=1, gang_seconds=5)
    waiting = await world.until(job, lambda r: "cannot start" in r.reason)
    assert waiting.state == "starting"
    assert "registry.invalid/none:1" in waiting.reason
    over = await world.over(job)
    assert over.state == "failed"


async def test_a_profile_that_is_gone_fails_the_job(world: World) -> None:
    job = world.submit(worker=1, profile="gone")
    await world.start()
    over = await world.over(job)
    assert (over.state, over.reason) == ("failed", "Profile gone is not offered any more.")
    assert await world.everything(job) == []


async def test_objects_that_somebody_deletes_are_not_made_again(world: World) -> None:
    world.command = script(rest=SERVE)
    await world.start()
    job = world.submit(worker=1)
    await world.running(job)
    await world.cluster.client.delete("jobs", f"{job.id}-worker", NAMESPACE)
    over = await world.over(job)
    assert over.state == "failed"
    assert "was deleted by somebody else" in over.reason
    await world.released(job)


async def test_an_evicted_replica_is_no_failure_of_the_script(world: World) -> None:
    world.command = script(rest="trap 'exit 1' TERM; while :; do sleep 0.05; done")
    await world.start()
    job = world.submit(worker=1, retries=0)
    await world.running(job)
    name = (await world.items("pods", job))[0]["metadata"]["name"]
    lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    status = {"status": {"conditions": [lost]}}
    # as Kubernetes ends the pods of a machine that is lost or drained
    await world.cluster.client.patch_status("pods", name, status, NAMESPACE)
    told = await world.until(job, lambda r: r.replicas[0].reason)
    assert told.replicas[0].reason == "Starts again: node-0 was lost."
    await world.cluster.delete(name)
    again = await world.until(
        job, lambda r: r.replicas[0].restarts == 1 and r.replicas[0].state == "running"
    )
    assert not again.is_over
    assert again.replicas[0].state == "running"


async def test_objects_without_a_row_go(world: World) -> None:
    """A database of before: what was launched since is nobody's."""
    world.command = script(rest=SERVE)
    await world.start()
    job = world.submit(worker=1)
    await world.running(job)
    await world.stop()
    with world.records._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM gpucloud_jobs")
    await world.start()
    await world.nothing_left(job)


async def test_objects_of_another_database_are_left_alone(world: World) -> None:
    world.command = script(rest=SERVE)
    await world.start()
    mine = world.submit(worker=1)
    await world.running(mine)
    await world.stop()
    with world.records._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM gpucloud_jobs")
        connection.exec_driver_sql("UPDATE gpucloud_identity SET name = 'another'")
    world.command = script(rest="exit 0")
    await world.start()
    other = world.submit(worker=1)
    await world.over(other)
    assert len(await world.active_pods(mine)) == 1


async def test_a_cluster_that_is_away_is_waited_for(world: World) -> None:
    """The reconciler retries, counts it, and finds everything as it is afterwards."""
    job = world.submit(worker=1)
    real = world.client.configuration.host
    await world.start()
    await world.over(job)
    world.client.configuration.host = "https://127.0.0.1:9"
    second = world.submit(worker=1)
    try:
        async with asyncio.timeout(20):
            while not world.metrics.errors._value.get():
                await asyncio.sleep(0.05)
        assert not world.record(second).is_over
    finally:
        world.client.configuration.host = real
    assert (await world.over(second)).state == "succeeded"


async def test_a_cluster_that_forbids_a_job_is_quoted_and_not_asked_for_ever(
    world: World, apiserver: APIServer
) -> None:
    controller = await world.start()
    settings = Configuration()
    await config.load_kube_config(str(apiserver.kubeconfig), client_configuration=settings)
    settings.cert_file = settings.key_file = None  # as nobody, who may not make Jobs
    settings.api_key = {}
    allowed = controller._actions._batch
    async with ApiClient(settings) as nobody:
        controller._actions._batch = BatchV1Api(nobody)
        waits, fails = world.submit(worker=1), world.submit(worker=1, gang_seconds=1)
        waiting = await world.until(waits, lambda r: r.reason)
        assert waiting.state == "queued"
        assert waiting.reason.startswith("Kubernetes does not take it: jobs.batch ")
        assert "cannot create" in waiting.reason
        over = await world.over(fails)
        assert (over.state, over.reason[:27]) == ("failed", "Kubernetes does not take it")
        controller._actions._batch = allowed
    over = await world.over(waits)  # a quota may grow
    assert (over.state, over.reason) == ("succeeded", "")
    await world.until(fails, lambda r: r.closed_at is not None)
    assert await world.items("services", fails) == []


async def test_with_kueue_jobs_are_made_suspended_for_its_queue(world: World) -> None:
    world.queue = "training"
    await world.start()
    job = world.submit(worker=1)
    waiting = await world.until(job, lambda r: "Kueue" in r.reason)
    assert waiting.state == "queued"
    made = (await world.items("jobs", job))[0]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    assert made["spec"]["suspend"] is True
    assert await world.items("pods", job) == []
    patch = {"spec": {"suspend": False}}  # as Kueue admits it
    await world.cluster.client.patch("jobs", made["metadata"]["name"], patch, NAMESPACE)
    assert (await world.over(job)).state == "succeeded"


async def test_a_job_that_kueue_never_admits_ends_with_its_timeout(world: World) -> None:
    """Kubernetes' own deadline begins only when a suspended job is let go."""
    world.queue = "training"
    await world.start()
    over = await world.over(world.submit(worker=1, timeout_seconds=3))
    assert over.state == "failed"
    assert over.reason == "The queue training did not let it go within its timeout of 3 s."
    await world.released(over)


async def test_many_jobs_at_once(world: World) -> None:
    world.settings = replace(world.settings, ttl=0)
    world.command = script(rest="exit 0")
    await world.start()
    jobs: list[JobRecord] = [world.submit(worker=1) for _ in range(12)]
    for job in jobs:
        await world.until(job, lambda r: r.closed_at is not None, timeout=60)
    await world.nothing_left()
