"""Namespaces: a `default` service account in each, and an end that empties them first."""

from __future__ import annotations

from ..client import ApiError, KubeClient, Obj
from ..informer import WorkQueue
from .informers import NAMESPACES, Informers, Kind

_RECHECK = 0.5


class NamespaceController:
    def __init__(self, client: KubeClient, informers: Informers, kinds: list[Kind]) -> None:
        self._client = client
        self._kinds = [kind for kind in kinds if kind.namespaced]
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="namespaces")
        self._namespaces = informers.on(NAMESPACES, self._changed)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self.queue.add(new["metadata"]["name"])

    async def _reconcile(self, name: str) -> float | None:
        namespace = self._namespaces.store.get(name)
        if namespace is None:
            return None
        if namespace["metadata"].get("deletionTimestamp"):
            return await self._empty(name)
        await self._ensure_account(name)
        return None

    async def _ensure_account(self, namespace: str) -> None:
        account = {"metadata": {"name": "default"}}
        try:
            await self._client.get("serviceaccounts", "default", namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            try:
                await self._client.create("serviceaccounts", account, namespace)
            except ApiError as refused:
                if refused.status not in (403, 404, 409):  # going away, gone, or made meanwhile
                    raise

    async def _empty(self, name: str) -> float | None:
        """Delete what is in the namespace; once nothing is left, let the namespace go."""
        left = 0
        for kind in self._kinds:
            path = self._client.path(kind.path, name)
            found = await self._client.request("GET", path, params={"limit": "1"})
            if found["items"]:
                left += 1
                policy = {"propagationPolicy": "Background"}
                await self._client.request("DELETE", path, params=policy)
        if left:
            return _RECHECK
        try:
            current = await self._client.get("namespaces", name)
            current["spec"]["finalizers"] = []
            await self._client.replace("namespaces", current, subresource="finalize")
        except ApiError as error:
            if error.status != 404:
                raise
        return None
