"""Jobs on the whole local cluster: what becomes of them and of their pods."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from kubernetes_asyncio import client, config

from tests.localcluster.support import NAMESPACE, Cluster, first_line, indexed, job

from .support import Obj, conditions, ended, pods_of, run, running, until, until_pods
from .test_names import service


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


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_deleted_job_takes_its_pods_along(cluster: Cluster, policy: str) -> None:
    await cluster.create(indexed("j", "exec sleep 60", 2))
    await until_pods(cluster, "j", running(2))
    await cluster.client.delete("jobs", "j", NAMESPACE, propagation=policy)
    await until_pods(cluster, "j", lambda pods: not pods)
    jobs = await cluster.informer("jobs")
    await until(lambda: not jobs.store)


async def test_a_job_deleted_in_the_foreground_goes_after_its_pods(cluster: Cluster) -> None:
    script = "trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    await cluster.create(job("j", script))
    [pod] = await until_pods(cluster, "j", running(1))
    await first_line(cluster, pod["metadata"]["name"])
    pods, jobs = await cluster.informer("pods"), await cluster.informer("jobs")
    left: list[int] = []
    jobs.handlers.append(lambda old, new: None if new else left.append(len(pods.store)))
    await cluster.client.delete("jobs", "j", NAMESPACE, propagation="Foreground")
    await until(lambda: bool(left))
    assert left == [0]


async def test_orphaned_pods_run_on_and_are_nobodys(cluster: Cluster, tmp_path: Path) -> None:
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"
    await cluster.create(job("j", script))
    await until_pods(cluster, "j", running(1))
    await cluster.client.delete("jobs", "j", NAMESPACE)  # no policy: as with a real cluster
    jobs = await cluster.informer("jobs")
    await until(lambda: not jobs.store)

    def free(pods: list[Obj]) -> bool:
        return not pods[0]["metadata"].keys() & {"ownerReferences", "finalizers"}

    [pod] = await until_pods(cluster, "j", free)
    (tmp_path / "go").touch()
    await cluster.phase(pod["metadata"]["name"], "Succeeded")
    # A new Job of the name does not take it over.
    await run(cluster, job("j", "true"))
    assert len(await pods_of(cluster, "j")) == 2


async def test_logs_that_are_followed_end_with_the_container(
    cluster: Cluster, tmp_path: Path
) -> None:
    script = f"echo one; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo two"
    await cluster.create(job("j", script))
    [pod] = await until_pods(cluster, "j", running(1))
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/log"
    follow = cluster.client.open("GET", path, params={"follow": "1"})
    async with asyncio.timeout(30), follow as response:
        assert await response.content.readline() == b"one\n"
        (tmp_path / "go").touch()
        assert await response.content.read() == b"two\n"


async def test_what_a_job_owns_goes_with_it(cluster: Cluster) -> None:
    made = await cluster.create(job("j", "exec sleep 60"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": made["metadata"]["uid"]}
    body = {"kind": "ConfigMap", "metadata": {"name": "code", "ownerReferences": [owner]}}
    await cluster.create(body)
    maps = await cluster.informer("configmaps")
    await until(lambda: f"{NAMESPACE}/code" in maps.store)
    await cluster.client.delete("jobs", "j", NAMESPACE, propagation="Background")
    await until(lambda: f"{NAMESPACE}/code" not in maps.store)


async def test_many_jobs_that_wait_cost_nothing(cluster: Cluster) -> None:
    waiting = [job(f"j{i}", "true", suspend=True) for i in range(100)]
    await asyncio.gather(*(cluster.create(body) for body in waiting))
    jobs = await cluster.informer("jobs")
    await until(lambda: sum("Suspended" in conditions(j) for j in jobs.store.values()) == 100, 60)
    events = await cluster.informer("events")
    await until(lambda: sum(e["reason"] == "Suspended" for e in events.store.values()) == 100, 60)
    version, used = jobs.version, time.process_time()
    await run(cluster, job("quick", "sleep 1"))  # what happens meanwhile is counted
    assert time.process_time() - used < 0.5
    changed = [j for j in jobs.store.values() if int(j["metadata"]["resourceVersion"]) > version]
    assert [j["metadata"]["name"] for j in changed] == ["quick"]


async def test_a_namespace_with_a_running_job_ends(cluster: Cluster) -> None:
    await cluster.client.create("namespaces", {"metadata": {"name": "team"}})
    await cluster.client.create("jobs", indexed("j", "exec sleep 60", 2), "team")
    pods, names = await cluster.informer("pods"), await cluster.informer("namespaces")
    await until(lambda: sum(p["status"]["phase"] == "Running" for p in pods.store.values()) == 2)
    await cluster.client.delete("namespaces", "team")
    await until(lambda: "team" not in names.store, 30)
    assert pods.store == {}


async def test_the_python_client_runs_a_job(cluster: Cluster) -> None:
    """The typed client refuses an answer that lacks what Kubernetes promises."""
    kubeconfig = str(cluster.server.kubeconfig)
    async with await config.new_client_from_config(kubeconfig) as connection:
        batch, core = client.BatchV1Api(connection), client.CoreV1Api(connection)
        discovery = client.DiscoveryV1Api(connection)
        await core.create_namespaced_service(NAMESPACE, service("j"))
        body = indexed("j", "sleep 0.2", 2, template={"subdomain": "j"})
        made = await batch.create_namespaced_job(NAMESPACE, body)
        assert (made.spec.completion_mode, made.status.active) == ("Indexed", None)
        await cluster.until("j", ended, resource="jobs")
        read = await batch.read_namespaced_job("j", NAMESPACE)
        assert [c.type for c in read.status.conditions] == ["SuccessCriteriaMet", "Complete"]
        slices = await discovery.list_namespaced_endpoint_slice(NAMESPACE)
        assert [s.metadata.labels["kubernetes.io/service-name"] for s in slices.items] == ["j"]
        await batch.delete_namespaced_job("j", NAMESPACE, propagation_policy="Foreground")
        await core.delete_namespaced_service("j", NAMESPACE)
    await until_pods(cluster, "j", lambda pods: not pods)
