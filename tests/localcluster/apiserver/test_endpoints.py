"""EndpointSlices at the API server alone, and who keeps them for a Service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.controllers import Controllers
from tests.localcluster.apiserver.conftest import TABLE, Api

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"


def slice_of(*addresses: str, **more: Any) -> dict[str, Any]:
    endpoints = [{"addresses": [address]} for address in addresses]
    return {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, **more}


async def test_a_slice_is_stored_and_shown(api: Api) -> None:
    made = await api.ok("POST", SLICES, slice_of("10.0.0.1", "10.0.0.2", ports=[{"port": 80}]))
    assert made["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
    assert made["endpoints"][0] == {"addresses": ["10.0.0.1"], "conditions": {}}
    found = await api.ok("GET", SLICES, accept=TABLE)
    names = [c["name"] for c in found["columnDefinitions"]]
    assert names == ["Name", "AddressType", "Ports", "Endpoints", "Age"]
    assert found["rows"][0]["cells"][:4] == ["s", "IPv4", "80", "10.0.0.1,10.0.0.2"]
    changed = await api.ok("PUT", f"{SLICES}/s", slice_of())
    assert (changed["endpoints"], changed["metadata"]["generation"]) == ([], 2)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (slice_of("fe80::1"), "endpoints[0].addresses[0]"),
        (slice_of("1.2.3"), "endpoints[0].addresses[0]"),
        ({**slice_of(), "addressType": "Letter"}, "addressType"),
        ({**slice_of(), "endpoints": [{"hostname": "a"}]}, "endpoints[0].addresses"),
        (
            {**slice_of(), "endpoints": [{"addresses": ["1.2.3.4"], "hostname": "A_"}]},
            "endpoints[0].hostname",
        ),
    ],
)
async def test_a_wrong_slice_is_refused(api: Api, body: dict[str, Any], field: str) -> None:
    status, answer = await api.call("POST", SLICES, body)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, field)


async def test_a_slice_follows_its_service_and_the_pods_labels(
    api: Api, apiserver: APIServer
) -> None:
    async def endpoints() -> Any:
        items = (await api.ok("GET", SLICES))["items"]
        return [
            (e["targetRef"]["name"], e["addresses"], e["conditions"]["ready"], s["ports"])
            for s in items
            for e in s["endpoints"]
        ]

    async def until(wanted: Any) -> None:
        async with asyncio.timeout(10):
            while await endpoints() != wanted:
                await asyncio.sleep(0.02)

    container = {"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 8501}]}
    async with (
        KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client,
        Controllers(client),
    ):
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
        await api.ok("POST", SERVICES, {"metadata": {"name": "web"}, "spec": spec})
        for name, app in (("a", "web"), ("b", "other")):
            await api.create_pod(name, labels={"app": app}, containers=[container])
            await api.bind(name)
            address = f"10.0.0.{1 + (name == 'b')}"
            ready = [{"type": "Ready", "status": "True"}]
            await api.status(name, phase="Running", podIP=address, conditions=ready)
        ports = [{"name": "", "port": 8501, "protocol": "TCP"}]
        first, second = ("a", ["10.0.0.1"], True, ports), ("b", ["10.0.0.2"], True, ports)
        await until([first])
        pods = "/api/v1/namespaces/default/pods"
        await api.patch(f"{pods}/b", {"metadata": {"labels": {"app": "web"}}})
        await until([first, second])
        await api.patch(f"{pods}/a", {"metadata": {"labels": {"app": "other"}}})
        await until([second])
        await api.status("b", phase="Succeeded")
        await until([])
        await api.patch(f"{SERVICES}/web", {"spec": {"selector": {"app": "other"}}})
        await until([first])
        await api.ok("DELETE", f"{SERVICES}/web")
        async with asyncio.timeout(10):
            while (await api.ok("GET", SLICES))["items"]:
                await asyncio.sleep(0.02)
