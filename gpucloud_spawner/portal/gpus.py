"""The GPUs of a cluster as the API and the page show them. Pure: Kubernetes objects in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..metering.observe import PRODUCT, GPUResources
from ..model import labels
from ..model.gpus import Inventory, KubeObject, Node, Waiting, pod_gpus, take_inventory


@dataclass(frozen=True)
class Holder:
    """A pod that holds GPUs."""

    node: str
    resource: str
    gpus: int
    user: str  # "" where it is none of gpucloud's
    team: str
    app: str
    component: str
    namespace: str
    pod: str


@dataclass(frozen=True)
class ProductRow:
    """All GPUs of one product and resource. ``free`` counts only machines that take new pods."""

    product: str
    resource: str
    capacity: int
    used: int
    free: int
    pending_pods: int
    pending_gpus: int


@dataclass(frozen=True)
class GPUInventory:
    """What there is, who has it, and who waits."""

    inventories: tuple[Inventory, ...]
    holders: tuple[Holder, ...]

    @property
    def products(self) -> list[ProductRow]:
        """One row per product and resource that a node carries."""
        rows = []
        for inventory in self.inventories:
            for product in sorted({_product(node) for node in inventory.nodes}):
                nodes = [node for node in inventory.nodes if _product(node) == product]
                waiting = [w for w in inventory.waiting if _may_get(w, nodes)]
                rows.append(
                    ProductRow(
                        product,
                        inventory.resource,
                        sum(node.capacity for node in nodes),
                        sum(node.used for node in nodes),
                        sum(_free(node) for node in nodes),
                        len(waiting),
                        sum(w.request.count for w in waiting),
                    )
                )
        return rows

    def as_json(self, *, with_holders: bool) -> dict[str, Any]:
        """The answer of `GET api/gpus`; only administrators are told who has what."""
        return {
            "nodes": [
                self._node_json(inventory.resource, node, with_holders)
                for inventory in self.inventories
                for node in inventory.nodes
            ],
            "products": [vars(row).copy() for row in self.products],
            "pending": [
                {
                    "resource": inventory.resource,
                    "pods": len(inventory.waiting),
                    "gpus": sum(waiting.request.count for waiting in inventory.waiting),
                    "oldest_since": inventory.waiting[0].since if inventory.waiting else None,
                }
                for inventory in self.inventories
            ],
        }

    def _node_json(self, resource: str, node: Node, with_holders: bool) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "node": node.name,
            "product": _product(node),
            "resource": resource,
            "capacity": node.capacity,
            "used": node.used,
            "free": _free(node),
            "schedulable": node.schedulable,
        }
        if with_holders:
            shown["used_by"] = [
                {k: v for k, v in vars(holder).items() if k not in ("node", "resource")}
                for holder in self.holders
                if (holder.node, holder.resource) == (node.name, resource)
            ]
        return shown


def _product(node: Node) -> str:
    return node.labels.get(PRODUCT, "")


def _free(node: Node) -> int:
    return max(0, node.capacity - node.used) if node.schedulable else 0


def _may_get(waiting: Waiting, nodes: Iterable[Node]) -> bool:
    return any(node.matches(waiting.request.node_selector) for node in nodes)


def describe_gpus(
    gpus: GPUResources, nodes: Sequence[KubeObject], pods: Sequence[KubeObject]
) -> GPUInventory:
    """The inventory of all GPU resources that nodes carry."""
    carried: set[str] = set(gpus.names)
    for node in nodes:
        carried |= gpus.within((node.get("status") or {}).get("allocatable") or {})
    holders = [
        holder
        for resource in sorted(carried)
        for pod in pods
        if (holder := _holder(pod, resource)) is not None
    ]
    inventories = [take_inventory(resource, nodes, pods) for resource in sorted(carried)]
    return GPUInventory(tuple(i for i in inventories if i.nodes or i.waiting), tuple(holders))


def _holder(pod: KubeObject, resource: str) -> Holder | None:
    meta, node = pod["metadata"], pod["spec"].get("nodeName")
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    count = 0 if ended or not node else pod_gpus(pod, resource)
    if not count:
        return None
    notes = meta.get("annotations") or {}
    return Holder(
        node=str(node),
        resource=resource,
        gpus=count,
        user=notes.get(labels.USER, ""),
        team=notes.get(labels.TEAM, ""),
        app=notes.get(labels.APP, ""),
        component=(meta.get("labels") or {}).get(labels.COMPONENT, ""),
        namespace=meta["namespace"],
        pod=meta["name"],
    )
