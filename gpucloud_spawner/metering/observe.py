"""What one Kubernetes object says about use: pods, claims and nodes as facts. Pure, no SQL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..model import labels
from ..model.gpus import pod_gpus
from ..model.pricing import parse_price
from ..model.units import parse_quantity
from ..model.usage import PodFacts, epoch

KubeObject = Mapping[str, Any]

# Set by Kubernetes on the pods of a Job.
_BATCH_JOB = "batch.kubernetes.io/job-name"
PRODUCT = "nvidia.com/gpu.product"
GIB = 2**30
_LONGEST = 255  # of our name columns; JupyterHub's own names are not longer


@dataclass(frozen=True)
class GPUResources:
    """Which extended resources are GPUs: exact names, and prefixes of names (MIG profiles)."""

    names: frozenset[str] = frozenset({"nvidia.com/gpu"})
    prefixes: tuple[str, ...] = ("nvidia.com/mig-",)

    def within(self, keys: Iterable[str]) -> set[str]:
        return {k for k in keys if k in self.names or k.startswith(self.prefixes)}


def read_pod(pod: KubeObject, gpus: GPUResources, *, gone: bool = False) -> PodFacts:
    """The facts in one observation of a pod; ``gone`` where it is known to be deleted."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    start_at, start_source = _start(meta, spec, status)
    resources = sorted(gpus.within(_resource_names(spec)))
    counts = {name: pod_gpus(pod, name) for name in resources}
    counts = {name: count for name, count in counts.items() if count}
    deleted_at = _deleted_at(meta)
    over = status.get("phase") in ("Succeeded", "Failed")
    finished_at = failed_at = None
    if over or gone or deleted_at is not None:
        finished_at = _containers_end(status)
    if over and finished_at is None:
        failed_at = _status_end(status)
    return PodFacts(
        uid=meta["uid"],
        pod=meta["name"][:_LONGEST],
        node=(spec.get("nodeName") or "")[:_LONGEST],
        namespace=meta["namespace"],
        resource="+".join(counts)[:_LONGEST],
        gpus=sum(counts.values()),
        price_nano=_price(meta),
        start_at=start_at,
        start_source=start_source,
        finished_at=finished_at,
        ended_alone=over and _ended_alone(spec, status, deleted_at),
        failed_at=failed_at,
        deleted_at=deleted_at,
        gone=gone,
        last_seen=_signs_of_life(status, start_at),
        **ownership(meta),
        component=_mark(meta, labels.COMPONENT),
        job=_mark(meta, labels.JOB) or (meta.get("labels") or {}).get(_BATCH_JOB, "")[:_LONGEST],
    )


def ownership(meta: KubeObject) -> dict[str, str]:
    """Owner, team, application and profile, exactly as written in the annotations."""
    return {
        "owner": _mark(meta, labels.USER),
        "team": _mark(meta, labels.TEAM),
        "app": _mark(meta, labels.APP),
        "profile": _mark(meta, labels.PROFILE),
    }


def _mark(meta: KubeObject, key: str) -> str:
    """An annotation, or the label of the same name; PostgreSQL stores no NUL."""
    exact = (meta.get("annotations") or {}).get(key)
    value = exact if exact is not None else (meta.get("labels") or {}).get(key, "")
    return str(value).replace("\0", "")[:_LONGEST]


def _price(meta: KubeObject) -> int | None:
    text = (meta.get("annotations") or {}).get(labels.PRICE)
    if text is None:
        return None
    try:
        return parse_price(text)
    except ValueError:
        return None  # then the price list applies; a wrong annotation must not stop the ledger


def _containers(spec: KubeObject) -> Iterator[KubeObject]:
    yield from spec.get("containers") or []
    yield from spec.get("initContainers") or []


def _resource_names(spec: KubeObject) -> Iterator[str]:
    for container in _containers(spec):
        resources = container.get("resources") or {}
        yield from resources.get("requests") or {}
        yield from resources.get("limits") or {}


def _condition(status: KubeObject, kind: str, value: str) -> int | None:
    for condition in status.get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == value:
            at = condition.get("lastTransitionTime")
            return epoch(at) if at else None
    return None


def _start(meta: KubeObject, spec: KubeObject, status: KubeObject) -> tuple[int | None, str]:
    scheduled = _condition(status, "PodScheduled", "True")
    if scheduled is not None:
        return scheduled, "scheduled"
    if not spec.get("nodeName"):
        return None, ""
    if status.get("startTime"):  # a pod that no scheduler bound
        return epoch(status["startTime"]), "kubelet"
    return epoch(meta["creationTimestamp"]), "created"


def _deleted_at(meta: KubeObject) -> int | None:
    """When the deletion was asked for: deletionTimestamp is that plus the grace period."""
    if not meta.get("deletionTimestamp"):
        return None
    return epoch(meta["deletionTimestamp"]) - int(meta.get("deletionGracePeriodSeconds") or 0)


def _container_statuses(status: KubeObject) -> Iterator[KubeObject]:
    for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(field) or []


def _containers_end(status: KubeObject) -> int | None:
    """The last container's end; None where one still runs, or ended nobody knows when."""
    ends = []
    for container in _container_statuses(status):
        state = container.get("state") or {}
        if "running" in state:
            return None
        # one that waits for a restart has ended before
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
        if ended is None:
            continue  # never started
        if not ended.get("finishedAt"):
            return None
        ends.append(epoch(ended["finishedAt"]))
    return max(ends, default=None)


def _status_end(status: KubeObject) -> int | None:
    """When the pod's own status says that it was over, where no container does."""
    times = [
        _condition(status, "DisruptionTarget", "True"),
        _condition(status, "ContainersReady", "False"),
        _condition(status, "Ready", "False"),
    ]
    return max((t for t in times if t is not None), default=None)


def _ended_alone(spec: KubeObject, status: KubeObject, deleted_at: int | None) -> bool:
    """Whether the containers were over for good without the deletion.

    Of a pod whose containers are restarted, the last end may lie long before the deletion that
    really ended it.
    """
    policy = spec.get("restartPolicy", "Always")
    succeeded = status.get("phase") == "Succeeded" and policy == "OnFailure"
    # a reason (Evicted, DeadlineExceeded ...): the node ended it
    return deleted_at is None or policy == "Never" or succeeded or bool(status.get("reason"))


def _signs_of_life(status: KubeObject, start_at: int | None) -> int | None:
    times = [start_at] if start_at is not None else []
    for container in _container_statuses(status):
        running = (container.get("state") or {}).get("running") or {}
        if running.get("startedAt"):
            times.append(epoch(running["startedAt"]))
    return max(times, default=None)


def trim(pod: KubeObject) -> dict[str, Any]:
    """The part of a pod that `read_pod` reads: what a stop record keeps, without any secret."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    kept = {
        k: meta[k]
        for k in (
            "uid",
            "name",
            "namespace",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
        if meta.get(k) is not None
    }
    for field in ("labels", "annotations"):
        marks = {
            k: v
            for k, v in (meta.get(field) or {}).items()
            if k.startswith(labels.PREFIX) or k == _BATCH_JOB
        }
        kept[field] = marks
    return {
        "metadata": kept,
        "spec": {
            "nodeName": spec.get("nodeName"),
            "restartPolicy": spec.get("restartPolicy", "Always"),
            "containers": [_trim_container(c) for c in spec.get("containers") or []],
            "initContainers": [_trim_container(c) for c in spec.get("initContainers") or []],
        },
        "status": {
            k: status[k]
            for k in (
                "phase",
                "reason",
                "startTime",
                "conditions",
                "initContainerStatuses",
                "containerStatuses",
                "ephemeralContainerStatuses",
            )
            if status.get(k)
        },
    }


def _trim_container(container: KubeObject) -> dict[str, Any]:
    kept = ("name", "resources", "restartPolicy")
    return {k: container[k] for k in kept if container.get(k)}


@dataclass(frozen=True)
class ClaimFacts:
    """What one observation of a claim says. Whole GiB, rounded up, as storage is handed out."""

    uid: str
    namespace: str
    claim: str
    owner: str
    team: str
    app: str
    profile: str
    created_at: int
    gib: int | None  # None: not bound to a volume yet
    seen_at: int
    deleted_at: int | None
    gone: bool


def read_claim(claim: KubeObject, seen_at: int, *, gone: bool = False) -> ClaimFacts:
    """The facts in one observation of a claim, made at ``seen_at`` (the API server's clock)."""
    meta, status = claim["metadata"], claim.get("status") or {}
    size = (status.get("capacity") or {}).get("storage")
    if size is None and status.get("phase") == "Bound":
        size = claim["spec"]["resources"]["requests"]["storage"]
    created_at = epoch(meta["creationTimestamp"])
    return ClaimFacts(
        uid=meta["uid"],
        namespace=meta["namespace"],
        claim=meta["name"][:_LONGEST],
        created_at=created_at,
        gib=None if size is None else math.ceil(parse_quantity(size) / GIB),
        seen_at=max(seen_at, created_at),
        deleted_at=_deleted_at(meta),
        gone=gone,
        **ownership(meta),
    )


@dataclass(frozen=True)
class NodeFacts:
    """GPUs of a node, and whether the cluster hears from it."""

    uid: str
    name: str
    product: str
    created_at: int
    gpus: Mapping[str, int]  # resource -> number
    lost_at: int | None
    ready_at: int | None


def read_node(node: KubeObject, gpus: GPUResources) -> NodeFacts:
    """The facts in one observation of a node."""
    meta, status = node["metadata"], node.get("status") or {}
    # capacity, not allocatable: a GPU that failed under a running pod is still that pod's
    offered = status.get("capacity") or status.get("allocatable") or {}
    return NodeFacts(
        uid=meta["uid"],
        name=meta["name"],
        product=(meta.get("labels") or {}).get(PRODUCT, "")[:_LONGEST],
        created_at=epoch(meta["creationTimestamp"]),
        gpus={name: int(parse_quantity(offered[name])) for name in gpus.within(offered)},
        lost_at=_condition(status, "Ready", "Unknown"),
        ready_at=_condition(status, "Ready", "True"),
    )
