"""The GPUs of the cluster, read on demand and shared for a moment between all who ask.

Nothing is watched here: only a server that is about to start, or that waits, needs to know.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api

from ..model.gpus import Inventory, take_inventory
from .listing import raw_items

_ACTIVE = "status.phase!=Succeeded,status.phase!=Failed"


class InventoryReader:
    """Reads nodes and pods of all namespaces; an answer is reused for at least ``max_age_seconds``.

    A large cluster takes longer to read, so its answers are kept longer: reading takes no more than
    a twentieth of the time. That nobody answered is kept, too.
    """

    def __init__(self, api: CoreV1Api, max_age_seconds: float = 2.0) -> None:
        self._api = api
        self._max_age = max_age_seconds
        self._lock = asyncio.Lock()
        self._fresh_until = float("-inf")
        self._found: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None
        self._inventories: dict[str, Inventory] = {}

    async def read(self, resource: str) -> Inventory | None:
        """The inventory of one GPU resource; None where the hub may not see it or nobody answers.

        Reading nodes and all pods needs a ClusterRole; a hub without it still works, with fewer
        words.
        """
        found = await self.snapshot()
        if found is None:
            return None
        if resource not in self._inventories:
            self._inventories[resource] = take_inventory(resource, *found)
        return self._inventories[resource]

    async def snapshot(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        """All nodes, and the pods of all namespaces that have not ended; None as for `read`."""
        async with self._lock:
            began = time.monotonic()
            if began > self._fresh_until:
                self._inventories.clear()
                try:
                    nodes, pods = await asyncio.gather(
                        self._items(self._api.list_node),
                        self._items(self._api.list_pod_for_all_namespaces, field_selector=_ACTIVE),
                    )
                    self._found = nodes, pods
                except (TimeoutError, ApiException, aiohttp.ClientError):
                    self._found = None
                now = time.monotonic()
                self._fresh_until = now + max(self._max_age, 20 * (now - began))
            return self._found

    async def _items(self, list_method: Any, **selectors: str) -> list[dict[str, Any]]:
        # resource_version 0: the API server's cache is fresh enough and costs etcd nothing
        return await raw_items(list_method, resource_version="0", **selectors)
