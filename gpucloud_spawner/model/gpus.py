"""Whether a GPU request fits: capacity, use and the queue of a cluster, and the words for it.

Pure: it is given node and pod objects as the Kubernetes API returns them (plain dicts).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .units import parse_quantity

KubeObject = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What one pod asks for."""

    resource: str
    count: int
    node_selector: Mapping[str, str]


@dataclass(frozen=True)
class Node:
    """The GPUs of one node, of one resource name."""

    name: str
    labels: Mapping[str, str]
    capacity: int  # allocatable: 0 while its device plugin restarts
    used: int = 0
    schedulable: bool = True
    installed: int = 0

    def matches(self, selector: Mapping[str, str]) -> bool:
        return all(self.labels.get(k) == v for k, v in selector.items())


@dataclass(frozen=True)
class Waiting:
    """A pod that no node has been found for yet."""

    uid: str
    since: str  # RFC 3339 creation time
    request: Request


@dataclass(frozen=True)
class Inventory:
    """Nodes that carry one GPU resource, and the pods that wait for it, oldest first."""

    resource: str
    nodes: tuple[Node, ...]
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True)
class Fit:
    """How a request stands: "fits", "full" or "impossible", and the words for its owner."""

    kind: str
    message: str


def pod_gpus(pod: KubeObject, resource: str) -> int:
    """GPUs that a pod holds: the largest of its containers' sum and any init container's.

    The rule of effective pod requests:
    https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers
    Sidecars (restartable init containers) add to the sum.
    """
    spec = pod["spec"]

    def of(container: KubeObject) -> int:
        resources = container.get("resources") or {}
        asked = (resources.get("requests") or {}).get(resource)
        if asked is None:  # extended resources: requests default to limits
            asked = (resources.get("limits") or {}).get(resource, 0)
        return int(parse_quantity(asked))

    total = sum(of(c) for c in spec["containers"])
    largest_init = 0
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            total += of(container)
        else:
            largest_init = max(largest_init, of(container))
    return max(total, largest_init)


def _usable(node: KubeObject) -> bool:
    if node["spec"].get("unschedulable"):
        return False
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def take_inventory(
    resource: str, nodes: Iterable[KubeObject], pods: Iterable[KubeObject]
) -> Inventory:
    """Count ``resource`` over all Node objects and the Pod objects of all namespaces."""
    used: dict[str, int] = {}
    waiting: list[Waiting] = []
    for pod in pods:
        count = pod_gpus(pod, resource)
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if not count or ended:
            continue
        node_name = pod["spec"].get("nodeName")
        meta = pod["metadata"]
        if node_name:
            used[node_name] = used.get(node_name, 0) + count
        elif not meta.get("deletionTimestamp"):
            selector = pod["spec"].get("nodeSelector") or {}
            request = Request(resource, count, selector)
            waiting.append(Waiting(meta["uid"], meta["creationTimestamp"], request))
    carrying = []
    for node in nodes:
        status = node.get("status") or {}
        capacity = int(parse_quantity((status.get("allocatable") or {}).get(resource, 0)))
        installed = int(parse_quantity((status.get("capacity") or {}).get(resource, capacity)))
        if capacity or installed:
            name = node["metadata"]["name"]
            labels = node["metadata"].get("labels") or {}
            in_use = used.get(name, 0)
            carrying.append(Node(name, labels, capacity, in_use, _usable(node), installed))
    # the uid breaks ties: creation times have whole seconds
    waiting.sort(key=lambda w: (w.since, w.uid))
    return Inventory(resource, tuple(carrying), tuple(waiting))


def judge(inventory: Inventory, request: Request, uid: str | None = None) -> Fit:
    """How ``request`` stands in ``inventory``; ``uid`` names its own pod once there is one."""
    impossible = _why_impossible(inventory, request)
    if impossible:
        return Fit("impossible", impossible)
    nodes = [n for n in inventory.nodes if n.matches(request.node_selector) and n.schedulable]
    total = sum(n.capacity for n in nodes)
    used = sum(n.used for n in nodes)
    position = _position(inventory, request, uid)
    if position == 1 and any(n.capacity - n.used >= request.count for n in nodes):
        return Fit("fits", "A GPU is free for you.")
    return Fit("full", _words_for_full(request.count, used, total, position))


def why_never_together(inventory: Inventory, request: Request, number: int) -> str:
    """Why ``number`` such requests can never run at the same time, even alone in the cluster.

    "" where they can.
    """
    impossible = _why_impossible(inventory, request)
    if impossible:
        return impossible
    nodes = [n for n in inventory.nodes if n.matches(request.node_selector)]
    most = sum(max(n.capacity, n.installed) // request.count for n in nodes)
    if number <= most:
        return ""
    each = _gpus(request.count)
    return (
        f"You asked for {number} replicas with {each} each at the same time, but this cluster's "
        f"machines hold at most {most} of them. Ask for fewer."
    )


def words_for_free(inventory: Inventory, selector: Mapping[str, str]) -> str:
    """How many GPUs of the nodes that ``selector`` allows are free now."""
    nodes = [n for n in inventory.nodes if n.matches(selector) and n.schedulable]
    total = sum(n.capacity for n in nodes)
    free = total - sum(n.used for n in nodes)
    return f"{free} of {_gpus(total)} free now." if total else "No such GPU in this cluster now."


def _position(inventory: Inventory, request: Request, uid: str | None) -> int:
    rivals = [w for w in inventory.waiting if _compete(w.request, request)]
    for index, waiting in enumerate(rivals):
        if waiting.uid == uid:
            return index + 1
    return len(rivals) + 1


def _compete(one: Request, other: Request) -> bool:
    """Whether two requests may want the same node: no label on which their selectors differ."""
    return all(other.node_selector.get(k, v) == v for k, v in one.node_selector.items())


def _why_impossible(inventory: Inventory, request: Request) -> str:
    if not inventory.nodes:
        return (
            f"No machine of this cluster has {request.resource}. "
            "Choose a profile without GPUs, or ask an administrator."
        )
    matching = [n for n in inventory.nodes if n.matches(request.node_selector)]
    if not matching:
        wanted = ", ".join(f"{k}={v}" for k, v in request.node_selector.items())
        return (
            f"No machine of this cluster carries the GPU that this profile asks for ({wanted}). "
            "Choose another profile, or ask an administrator."
        )
    largest = max(max(n.capacity, n.installed) for n in matching)
    if request.count > largest:
        return (
            f"You asked for {_gpus(request.count)}, but no machine has more than {largest}. "
            f"Choose at most {largest}."
        )
    return ""


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _words_for_full(count: int, used: int, total: int, position: int) -> str:
    what = "a free GPU" if count == 1 else f"{count} free GPUs on one machine"
    verb = "is" if used == 1 else "are"
    return (
        f"Waiting for {what}: {used} of {total} {verb} in use; "
        f"your request is number {position} in the queue"
    )
