"""How full the volumes of a node's pods are: that part of a kubelet's /stats/summary.

A claim here is a folder, so what is in it is counted, anew for each question. What a kubelet also
tells (CPU, memory, network) is left out rather than guessed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..client import ApiError
from ..events import now
from ..quantity import amount
from .host import Host
from .podworker import PodWorker

Obj = dict[str, Any]


async def summary(host: Host, workers: Iterable[PodWorker]) -> Obj:
    """https://kubernetes.io/docs/reference/instrumentation/node-metrics/#summary-api-source"""
    pods = [await _pod(host, worker.pod) for worker in list(workers)]
    return {"node": {"nodeName": host.name}, "pods": pods}


async def _pod(host: Host, pod: Obj) -> Obj:
    meta = pod["metadata"]
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if source := volume.get("persistentVolumeClaim"):
            stats = await _claim(host, meta["namespace"], source["claimName"])
            if stats is not None:
                found.append({"name": volume["name"], **stats})
    reference = {name: meta[name] for name in ("name", "namespace", "uid")}
    return {"podRef": reference, "volume": found}


async def _claim(host: Host, namespace: str, name: str) -> Obj | None:
    try:
        claim = await host.client.get("persistentvolumeclaims", name, namespace)
    except ApiError:
        return None
    folder = host.data / "volumes" / namespace / claim["metadata"]["uid"]
    if not folder.is_dir():
        return None
    asked = claim["spec"]["resources"]["requests"]
    capacity = amount("storage", {**asked, **(claim["status"].get("capacity") or {})}["storage"])
    used, count = await asyncio.to_thread(_measure, folder)
    return {
        "time": now(),
        "capacityBytes": capacity,
        "usedBytes": used,
        "availableBytes": max(capacity - used, 0),
        "inodesUsed": count,
        "pvcRef": {"name": name, "namespace": namespace},
    }


def _measure(folder: Path) -> tuple[int, int]:
    """Bytes on the disk and number of files below ``folder``; links are not followed, and a file
    with several names counts once."""
    used, seen = 0, set()
    for root, _, names in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in names)):
            try:
                status = path.lstat()
            except FileNotFoundError:  # removed meanwhile
                continue
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                used += status.st_blocks * 512
    return used, len(seen)
