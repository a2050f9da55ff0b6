"""Pods and nodes as the API server sends them, told to the ledger as the meter tells them."""

from __future__ import annotations

import copy
from typing import Any

from sqlalchemy import Connection, Engine, delete, select

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.observe import (
    GPUResources,
    read_pod,
)
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.recorder import (
    Recorded,
    record_pods,
)
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import INTERVAL, POSITION
from gpucloud_spawner.model.usage import Window, rfc3339

Object = dict[str, Any]
GPUS = GPUResources()
T0 = 1_795_000_000
MONTH = Window(T0 - 86400, T0 + 10 * 86400)


def a_pod(uid: str = "u1", gpus: int = 1, *, at: int = T0, **notes: str) -> Object:
    """A pod that was bound to node w at ``at``."""
    marks = {
        "gpucloud.io/user": "ada",
        "gpucloud.io/team": "vision",
        "gpucloud.io/app": "lab",
        "gpucloud.io/profile": "tf",
        "gpucloud.io/price-per-gpu-hour": "1.50",
    }
    marks |= {f"gpucloud.io/{k}": v for k, v in notes.items()}
    return {
        "metadata": {
            "uid": uid,
            "name": f"pod-{uid}",
            "namespace": "n",
            "creationTimestamp": rfc3339(at - 5),
            "labels": {"gpucloud.io/component": "notebook"},
            "annotations": marks,
        },
        "spec": {
            "nodeName": "w",
            "restartPolicy": "OnFailure",
            "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(at)}
            ],
        },
    }


def pending(pod: Object) -> Object:
    pod = copy.deepcopy(pod)
    del pod["spec"]["nodeName"]
    pod["status"] = {"phase": "Pending", "conditions": []}
    return pod


def running(pod: Object, at: int, restarts: int = 0) -> Object:
    pod = copy.deepcopy(pod)
    state = {"running": {"startedAt": rfc3339(at)}}
    pod["status"] |= {
        "phase": "Running",
        "containerStatuses": [{"name": "c", "restartCount": restarts, "state": state}],
    }
    return pod


def ended(pod: Object, at: int, code: int = 0) -> Object:
    pod = copy.deepcopy(pod)
    state = {"terminated": {"exitCode": code, "finishedAt": rfc3339(at)}}
    pod["status"] |= {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{"name": "c", "state": state}],
    }
    return pod


def deleted(pod: Object, at: int, grace: int = 30) -> Object:
    pod = copy.deepcopy(pod)
    pod["metadata"] |= {
        "deletionTimestamp": rfc3339(at + grace),
        "deletionGracePeriodSeconds": grace,
    }
    return pod


def a_node(
    name: str = "w",
    gpus: int = 4,
    *,
    ready: str = "True",
    at: int = T0 - 900,
    product: str = "A100",
) -> Object:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": rfc3339(at)}
    return {
        "metadata": {
            "uid": f"uid-{name}",
            "name": name,
            "creationTimestamp": rfc3339(T0 - 1000),
            "labels": {"nvidia.com/gpu.product": product},
        },
        "spec": {},
        "status": {"capacity": {"nvidia.com/gpu": str(gpus)}, "conditions": [condition]},
    }


def tell(
    engine: Engine, *pods: Object, gone: bool = False, heartbeat: int = 0, source: str = "watch"
) -> Recorded:
    """What a watch does with events: ``gone`` says whether the last one is DELETED."""
    with db.writing(engine).begin() as connection:
        facts = [read_pod(pod, GPUS) for pod in pods[:-1]]
        facts.append(read_pod(pods[-1], GPUS, gone=gone))
        return record_pods(connection, facts, heartbeat=heartbeat, source=source)


def rows(engine: Engine) -> list[Object]:
    with engine.connect() as connection:
        found = connection.execute(select(INTERVAL).order_by(INTERVAL.c.uid)).mappings()
        return [dict(row) for row in found]


def end(engine: Engine) -> tuple[int, str]:
    (row,) = rows(engine)
    return row["end_at"], row["end_source"]


def beat(connection: Connection, at: int) -> None:
    connection.execute(delete(POSITION))
    connection.execute(POSITION.insert().values(stream="pods", heartbeat_at=at))


def seconds(engine: Engine, heartbeat: int = T0 + 10**6, **filters: tuple[str, ...]) -> int:
    with db.writing(engine).begin() as connection:
        beat(connection, heartbeat)
    return usage(engine, Query(MONTH, (), filters)).total.gpu_seconds


STORY = [
    pending(a_pod()),
    a_pod(),
    running(a_pod(), T0 + 3),
    deleted(running(a_pod(), T0 + 3), T0 + 50),
    deleted(ended(a_pod(), T0 + 55), T0 + 50),
    deleted(ended(a_pod(), T0 + 55), T0 + 50, 0),
]
