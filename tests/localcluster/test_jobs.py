"""Jobs on the whole local cluster: what becomes of them and of their pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers, Periods

from .support import NAMESPACE, Cluster, everything, indexed, job

Obj = dict[str, Any]
QUICK = Periods(job_backoff=0.2, job_backoff_max=1.0)


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster, Controllers(cluster.client, QUICK):
        yield cluster


def conditions(found: Obj) -> dict[str, str]:
    """The conditions that hold, with their reasons."""
    known = found.get("status", {}).get("conditions", [])
    return {c["type"]: c["reason"] for c in known if c["status"] == "True"}


def ended(found: Obj) -> bool:
    return bool(conditions(found).keys() & {"Complete", "Failed"})


async def run(cluster: Cluster, body: Obj) -> Obj:
    """Creates a Job and waits for its end."""
    await cluster.create(body)
    return await cluster.until(body["metadata"]["name"], ended, resource="jobs")


async def pods_of(cluster: Cluster, name: str) -> list[Obj]:
    selector = f"batch.kubernetes.io/job-name={name}"
    found = await cluster.client.list("pods", NAMESPACE, label_selector=selector)
    return sorted(found["items"], key=lambda p: p["metadata"]["creationTimestamp"])


async def until_pods(cluster: Cluster, name: str, test: Any) -> list[Obj]:
    async with asyncio.timeout(15):
        while not test(pods := await pods_of(cluster, name)):
            await asyncio.sleep(0.02)
    return pods


def running(count: int) -> Any:
    return lambda pods: [p["status"]["phase"] for p in pods].count("Running") == count


async def test_an_indexed_job_runs_one_pod_per_index_to_completion(cluster: Cluster) -> None:
    body = indexed("train", "echo $JOB_COMPLETION_INDEX $HOSTNAME", 3, template={"subdomain": "t"})
    done = await run(cluster, body)
    status = done["status"]
    assert conditions(done) == dict.fromkeys(
        ("SuccessCriteriaMet", "Complete"), "CompletionsReached"
    )
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    assert {"active", "failed"}.isdisjoint(status)
    assert status["completionTime"] >= status["startTime"]
    pods = await pods_of(cluster, "train")
    output = [await cluster.logs(p["metadata"]["name"]) for p in pods]
    assert sorted(output) == ["0 train-0\n", "1 train-1\n", "2 train-2\n"]
    for pod in pods:
        index = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        assert pod["metadata"]["name"].startswith(f"train-{index}-")
        assert "finalizers" not in pod["metadata"]


async def test_a_failing_pod_is_replaced_until_the_limit(cluster: Cluster) -> None:
    done = await run(cluster, job("bad", "exit 3", backoffLimit=2))
    assert conditions(done)["Failed"] == "BackoffLimitExceeded"
    assert done["status"]["failed"] == 3
    assert len(await pods_of(cluster, "bad")) == 3
    event = await cluster.event("bad", "BackoffLimitExceeded")
    assert event["message"] == "Job has reached the specified backoff limit"


async def test_a_pod_that_succeeds_after_a_retry_completes_the_job(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = f"mkdir {tmp_path}/once && exit 1; exit 0"
    done = await run(cluster, job("again", script, backoffLimit=1))
    assert conditions(done)["Complete"] == "CompletionsReached"
    assert (done["status"]["succeeded"], done["status"]["failed"]) == (1, 1)
