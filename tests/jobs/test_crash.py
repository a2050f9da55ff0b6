"""The service is killed again and again, between any two steps: nothing is launched twice, nothing
is left behind, and every job comes to its end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter

from gpucloud_spawner.jobs.manifests import INDEX
from gpucloud_spawner.localcluster.informer import Informer

from .world import NAMESPACE, SERVE, World, script

ROUNDS = int(os.environ.get("GPUCLOUD_ROUNDS", "4"))


async def service(world: World) -> asyncio.subprocess.Process:
    url = world.records._engine.url.render_as_string(hide_password=False)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.jobs.controller_process",
        url,
        json.dumps(list(world.command)),
        "0",
        "0.1",
        env={**os.environ, "KUBECONFIG": str(world.cluster.server.kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_killed_between_any_two_steps(world: World) -> None:
    chance = random.Random(os.environ.get("GPUCLOUD_SEED", "jobs"))  # noqa: S311
    world.command = script(chief_0="sleep 0.3; exit 0", rest=SERVE)
    made: Counter[str] = Counter()
    seen: set[str] = set()

    def count(old: object, new: object) -> None:
        if isinstance(new, dict) and new["metadata"]["uid"] not in seen:
            meta = new["metadata"]
            seen.add(meta["uid"])
            made[f"{meta['ownerReferences'][0]['name']}-{meta['annotations'][INDEX]}"] += 1

    watching = Informer(world.cluster.client, "pods", handler=count)
    watching.start()
    await watching.synced()
    jobs = []
    for _ in range(ROUNDS):
        jobs.append(world.submit(chief=1, worker=1, ps=1))
        if chance.random() < 0.3:
            world.records.request_stop(chance.choice(jobs).id, "Stopped by you.")
        process = await service(world)
        assert process.stdout is not None
        await process.stdout.readline()
        # the steps of a launch take some milliseconds each
        await asyncio.sleep(chance.choice([0, 0.05, 0.1, 0.2, 0.4]) + chance.random() * 0.2)
        process.kill()
        await process.wait()
    last = await service(world)
    try:
        for job in jobs:
            over = await world.until(job, lambda r: r.closed_at is not None, timeout=60)
            assert over.state in ("succeeded", "stopped"), over
        await world.nothing_left()
    finally:
        last.kill()
        await last.wait()
        await watching.stop()
    assert made
    assert set(made.values()) == {1}, [name for name, number in made.items() if number > 1]


async def test_two_services_that_both_believe_to_lead_do_no_harm(world: World) -> None:
    world.command = script(rest="sleep 0.3; exit 0")
    await world.start()
    await world.start()
    jobs = [world.submit(worker=2) for _ in range(4)]
    for job in jobs:
        assert (await world.over(job)).state == "succeeded"
        pods = await world.items("pods", job)
        assert len(pods) == 2
        listed = await world.cluster.client.list("jobs", namespace=NAMESPACE)
        names = [o["metadata"]["name"] for o in listed["items"]]
        assert names.count(f"{job.id}-worker") == 1
