"""A real kubectl on Jobs and headless Services."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.localcluster.support import Cluster, indexed, job
from tests.localcluster.test_cluster_kubectl import Kubectl

from .support import conditions, pods_of, run, running, until_pods
from .test_names import service

pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH"),
]


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl(cluster.server.kubeconfig)


async def test_a_jobs_life(kubectl: Kubectl, cluster: Cluster) -> None:
    await kubectl("create", "-f", "-", text=json.dumps(job("hello", "echo hello")))
    await kubectl("wait", "--for=condition=complete", "--timeout=20s", "job/hello")
    assert await kubectl("logs", "job/hello") == "hello\n"
    [row] = (await kubectl("get", "jobs", "--no-headers")).splitlines()
    assert row.split()[:3] == ["hello", "Complete", "1/1"]
    told = await kubectl("describe", "job", "hello")
    [pod] = await pods_of(cluster, "hello")
    for text in (
        "Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed",
        f"Created pod: {pod['metadata']['name']}",
        "Job completed",
    ):
        assert text in told
    assert "job.batch/hello" in await kubectl("get", "all")
    await kubectl("delete", "job", "hello", "--timeout=20s")
    await until_pods(cluster, "hello", lambda pods: not pods)


async def test_the_pods_and_names_of_an_indexed_job(kubectl: Kubectl, cluster: Cluster) -> None:
    body = indexed("train", "exec sleep 60", 2, template={"subdomain": "train"})
    text = "\n".join(json.dumps(part) for part in (service("train"), body))
    await kubectl("apply", "-f", "-", text=text)
    pods = await until_pods(cluster, "train", running(2))
    told = await kubectl("describe", "service", "train")
    for pod in pods:
        assert f"{pod['status']['podIP']}:2222" in told
    assert "IP:                       None" in told
    [row] = (await kubectl("get", "endpointslices", "--no-headers")).splitlines()
    assert row.split()[1:3] == ["IPv4", "2222"]
    await kubectl("delete", "job", "train", "--cascade=foreground", "--timeout=20s")
    await kubectl("delete", "service", "train")
    assert await kubectl("get", "jobs,services,endpointslices,pods") == ""


async def test_a_job_is_suspended_and_orphaned_by_hand(kubectl: Kubectl, cluster: Cluster) -> None:
    await cluster.create(job("j", "exec sleep 60"))
    await until_pods(cluster, "j", running(1))
    await kubectl("patch", "job", "j", "-p", '{"spec":{"suspend":true}}')
    await kubectl("wait", "--for=condition=suspended", "--timeout=20s", "job/j")
    assert "Suspended" in await kubectl("get", "job", "j")
    await kubectl("patch", "job", "j", "-p", '{"spec":{"suspend":false}}')
    await until_pods(cluster, "j", running(1))
    await kubectl("delete", "job", "j", "--cascade=orphan", "--timeout=20s")
    [pod] = await pods_of(cluster, "j")
    assert pod["status"]["phase"] == "Running"
    done = await run(cluster, job("other", "true"))
    assert "Complete" in conditions(done)
