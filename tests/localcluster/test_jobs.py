"""Jobs on the whole local cluster: what becomes of them and of their pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.controllers import Controllers, Periods

from .support import NAMESPACE, Cluster, everything, indexed, job, terminated

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


HOSTS = "$GPUCLOUD_MOUNTS/etc/hosts"


def service(name: str, **spec: Any) -> Obj:
    """A headless Service of a Job's pods."""
    selector = {"batch.kubernetes.io/job-name": name}
    body = {"clusterIP": "None", "selector": selector, "ports": [{"port": 2222}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


async def test_the_pods_of_a_job_find_each_other_by_name(cluster: Cluster) -> None:
    await cluster.create(service("train", publishNotReadyAddresses=True))
    script = f"""
        for other in 0 1; do
            until grep -q "train-$other.train.default.svc " {HOSTS}; do sleep 0.02; done
        done
        grep -w train-1.train {HOSTS} | cut -f 1"""
    body = indexed("train", script, 2, template={"subdomain": "train"})
    done = await run(cluster, body)
    assert "Complete" in conditions(done)
    pods = await pods_of(cluster, "train")
    addresses = {p["spec"]["hostname"]: p["status"]["podIP"] for p in pods}
    for pod in pods:
        lines = (await cluster.logs(pod["metadata"]["name"])).split()
        assert set(lines) == {addresses["train-1"]}


async def test_a_pod_that_is_replaced_is_found_at_its_new_address_within_a_second(
    cluster: Cluster,
) -> None:
    await cluster.create(service("train"))
    body = indexed("train", "sleep 60", 2, template={"subdomain": "train"}, backoffLimit=6)
    await cluster.create(body)
    first = await until_pods(cluster, "train", running(2))
    old, watching = sorted(first, key=lambda p: p["spec"]["hostname"])
    file = cluster.data / "kubelet/pods" / watching["metadata"]["uid"] / "etc-hosts"
    await until(lambda: f"{old['status']['podIP']}\ttrain-0.train.default" in file.read_text())
    await cluster.delete(old["metadata"]["name"], grace=0)

    def replaced(pods: list[Obj]) -> bool:
        names = {p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Running"}
        return len(names - {old["metadata"]["name"]}) == 2

    pods = await until_pods(cluster, "train", replaced)
    new = next(p for p in pods if p["spec"]["hostname"] == "train-0")
    line = f"{new['status']['podIP']}\ttrain-0.train.default.svc.cluster.local"
    await until(lambda: line in file.read_text(), 1.0)
    await until(lambda: old["status"]["podIP"] not in file.read_text(), 1.0)


async def until(test: Any, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not test():
            await asyncio.sleep(0.01)


async def test_a_pod_that_is_not_ready_has_no_name_unless_the_service_says_so(
    cluster: Cluster,
) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    container = job("x", "sleep 60")["spec"]["template"]["spec"]["containers"][0]
    template = {"subdomain": "shy", "containers": [{**container, "readinessProbe": probe}]}
    await cluster.create(service("shy"))
    await cluster.create(indexed("shy", "", 2, template=template))
    pods = await until_pods(cluster, "shy", running(2))
    one, other = sorted(pods, key=lambda p: p["spec"]["hostname"])
    file = cluster.data / "kubelet/pods" / one["metadata"]["uid"] / "etc-hosts"
    slices = await cluster.informer("endpointslices")

    def addresses() -> list[str]:
        return [a for s in slices.store.values() for e in s["endpoints"] for a in e["addresses"]]

    await until(lambda: len(addresses()) == 2)
    text = file.read_text()
    assert f"{one['status']['podIP']}\tshy-0.shy.default.svc.cluster.local" in text
    assert other["status"]["podIP"] not in text
    change = {"spec": {"publishNotReadyAddresses": True}}
    await cluster.client.patch("services", "shy", change, NAMESPACE)
    await until(lambda: f"{other['status']['podIP']}\tshy-1.shy.default" in file.read_text())


async def test_a_container_finds_its_hosts_and_its_termination_message(cluster: Cluster) -> None:
    script = """
        grep -q localhost /etc/hosts && grep -q filer.example /etc/hosts || exit 1
        echo -n one >> $GPUCLOUD_TERMINATION_LOG
        echo -n two >> $GPUCLOUD_MOUNTS/dev/termination-log
        echo -n three >> /dev/termination-log"""
    aliases = [{"ip": "10.1.2.3", "hostnames": ["filer.example"]}]
    await run(cluster, job("last", script, template={"hostAliases": aliases}))
    [pod] = await pods_of(cluster, "last")
    assert terminated(pod)["message"] == "onetwothree"
