"""kubectl as a client of the API server, without nodes; `kubectl logs` is tested with a kubelet."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.controllers import Controllers
from tests.localcluster.apiserver.conftest import Api

pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH"),
]
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, size: "3"}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: main, image: "busybox:1", env: [{name: A, value: "1"}]}
  - {name: side, image: "busybox:1"}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


class Kubectl:
    def __init__(self, server: APIServer, cache: Path) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
        self._environment["KUBECACHEDIR"] = str(cache)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "kubectl",
            *arguments,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, text: str = "") -> tuple[int, str, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(30):
            out, err = await process.communicate(text.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def __call__(self, *arguments: str, text: str = "") -> str:
        code, out, err = await self.run(*arguments, text=text)
        assert code == 0, err
        assert "error" not in err.lower(), err
        return out


@pytest.fixture
def kubectl(apiserver: APIServer, tmp_path: Path) -> Kubectl:
    return Kubectl(apiserver, tmp_path / "cache")


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_apply_get_and_delete(kubectl: Kubectl, api: Api) -> None:
    out = await kubectl("apply", "-f", "-", text=MANIFEST)
    assert out.split("\n")[:3] == [
        "configmap/settings created",
        "pod/web created",
        "service/web created",
    ]
    out = await kubectl("apply", "-f", "-", text=MANIFEST)
    assert out.count("unchanged") == 3, out
    changed = MANIFEST.replace("red", "blue").replace(', size: "3"', "")
    changed = changed.replace('main, image: "busybox:1"', 'main, image: "busybox:2"')
    out = await kubectl("apply", "-f", "-", text=changed)
    assert "configmap/settings configured" in out
    assert "pod/web configured" in out
    settings = await api.ok("GET", "/api/v1/namespaces/default/configmaps/settings")
    assert settings["data"] == {"colour": "blue"}
    rows = table(await kubectl("get", "pods"))
    assert rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert rows[1][:4] == ["web", "0/2", "Pending", "0"]
    wide = await kubectl("get", "po", "-o", "wide", "--all-namespaces")
    assert table(wide)[0][:2] == ["NAMESPACE", "NAME"]
    assert "NOMINATED NODE" in wide
    assert (await kubectl("get", "pod", "web", "-o", "jsonpath={.spec.containers[*].image}")) == (
        "busybox:2 busybox:1"
    )
    assert "service/web" in await kubectl("get", "all")
    out = await kubectl("delete", "-f", "-", text=MANIFEST)
    assert out.count("deleted") == 3
    assert await api.names() == []


async def test_apply_validates_on_the_server(kubectl: Kubectl, api: Api) -> None:
    wrong = MANIFEST.replace("\ndata: {", "\ndada: {")
    code, _, err = await kubectl.run("apply", "-f", "-", text=wrong)
    assert code == 1
    assert 'unknown field "dada"' in err


async def test_create_describe_label_and_patch(kubectl: Kubectl, api: Api) -> None:
    await kubectl("create", "-f", "-", text=MANIFEST)
    code, _, err = await kubectl.run("create", "-f", "-", text=MANIFEST)
    assert code == 1
    assert 'Error from server (AlreadyExists): error when creating "STDIN": pods "web"' in err
    await kubectl("label", "pod", "web", "tier=front")
    await kubectl("annotate", "pod", "web", "note=hello")
    described = await kubectl("describe", "pod", "web")
    for words in ("tier=front", "note: hello", "Status:           Pending", "QoS Class:"):
        assert words in described, described
    assert "Endpoints" in await kubectl("describe", "service", "web")
    assert (
        table(await kubectl("get", "pods", "-l", "tier in (front)", "--no-headers"))[0][0] == "web"
    )
    await kubectl(
        "patch",
        "pod",
        "web",
        "--type=json",
        "-p",
        '[{"op":"remove","path":"/metadata/labels/tier"}]',
    )
    code, out, err = await kubectl.run("get", "pods", "-l", "tier")
    assert (code, out, err.strip()) == (0, "", "No resources found in default namespace.")
    await kubectl("describe", "node")
    assert "Active" in await kubectl("describe", "namespace", "default")


async def test_get_watches_tables(kubectl: Kubectl, api: Api) -> None:
    await api.create_pod("a")
    process = await kubectl.start("get", "pods", "-w")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[:3] == [b"a", b"0/1", b"Pending"]
            await api.bind("a")
            state = {"waiting": {"reason": "ContainerCreating"}}
            await api.status("a", containerStatuses=[{"name": "c", "state": state}])
            while b"ContainerCreating" not in await process.stdout.readline():
                pass
            await api.ok("DELETE", "/api/v1/namespaces/default/pods/a")
            while b"Terminating" not in await process.stdout.readline():
                pass
    finally:
        process.kill()
        await process.communicate()


async def test_more_rows_than_a_page(kubectl: Kubectl, api: Api) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    for i in range(1200):
        await api.ok("POST", path, {"metadata": {"name": f"c{i}"}})
    assert len(table(await kubectl("get", "configmaps", "--no-headers"))) == 1200


async def test_deleting_a_namespace_waits_for_its_end(
    kubectl: Kubectl, apiserver: APIServer, api: Api
) -> None:
    async with (
        KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client,
        Controllers(client),
    ):
        text = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}'
        await kubectl("create", "-f", "-", text=text)
        await kubectl("apply", "-n", "x", "-f", "-", text=MANIFEST)
        await kubectl("delete", "namespace", "x", "--timeout=20s")
        assert (await api.call("GET", "/api/v1/namespaces/x"))[0] == 404


async def test_what_is_not_served_is_named(kubectl: Kubectl) -> None:
    code, _, err = await kubectl.run("get", "--raw", "/apis/apps/v1/deployments")
    assert code == 1
    assert "the local cluster does not implement the resource deployments of apps/v1" in err
    code, _, err = await kubectl.run("get", "deployments")
    assert code == 1
    assert 'the server doesn\'t have a resource type "deployments"' in err
    out = await kubectl("api-resources")
    assert "persistentvolumeclaims" in out
    assert "storage.k8s.io/v1" in out
