"""What the tests of Jobs have in common: short ways to look at a Job and its pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.localcluster.support import NAMESPACE, Cluster

Obj = dict[str, Any]


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


async def until_pods(cluster: Cluster, name: str, test: Callable[[list[Obj]], bool]) -> list[Obj]:
    async with asyncio.timeout(15):
        while not test(pods := await pods_of(cluster, name)):
            await asyncio.sleep(0.02)
    return pods


def running(count: int) -> Callable[[list[Obj]], bool]:
    return lambda pods: [p["status"]["phase"] for p in pods].count("Running") == count


async def until(test: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not test():
            await asyncio.sleep(0.01)
