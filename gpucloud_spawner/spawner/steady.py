"""KubeSpawner over an unsteady API server: views that recover, requests that are tried again.

Nothing here is about GPUs, profiles or users; it would serve any KubeSpawner.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner

from .orphans import OrphanSweeper
from .reflectors import STEADY


class SteadyKubeSpawner(KubeSpawner):
    """A KubeSpawner whose view of the cluster outlives any outage."""

    _sweeper: OrphanSweeper | None = None
    _pod_requested = False
    _earlier_pod_uid: str | None = None

    @property
    def current_pod(self) -> dict[str, Any] | None:
        """Our pod as last seen, or None."""
        reflector = self.pod_reflector
        return reflector.pods.get(f"{self.namespace}/{self.pod_name}") if reflector else None

    def is_of_this_start(self, pod: dict[str, Any]) -> bool:
        """Whether ``pod`` is the one just asked for, not an earlier one of the same name."""
        return self._pod_requested and pod["metadata"]["uid"] != self._earlier_pod_uid

    async def _ensure_namespace(self) -> None:
        try:
            await super()._ensure_namespace()
        except ApiException as error:
            # it may exist all the same: asking needs fewer rights than making
            if error.status != 403:
                raise

    async def _start_reflector(
        self, kind: str, reflector_class: Any, replace: bool = False, **kwargs: Any
    ) -> Any:
        if reflector_class not in STEADY:
            return await super()._start_reflector(kind, reflector_class, replace, **kwargs)
        # `replace` is for reflectors that died: ours do not
        key = self._get_reflector_key(kind)
        reflector = self.reflectors.get(key)
        if reflector is None:
            reflector = STEADY[reflector_class](parent=self, namespace=self.namespace, **kwargs)
            self.__class__.reflectors[key] = reflector
            await reflector.start()
        await reflector.loaded()
        if kind == "pods" and self._sweeper is None:
            type(self)._sweeper = OrphanSweeper(self)
        return reflector

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        if not self._pod_requested:
            # KubeSpawner deletes a pod of the same name from before; its state is not ours
            self._earlier_pod_uid = (self.current_pod or {}).get("metadata", {}).get("uid")
            self._pod_requested = True
        return await _unless_unreachable(super()._make_create_pod_request(pod, request_timeout))

    async def _make_create_pvc_request(self, pvc: Any, request_timeout: float) -> bool:
        return await _unless_unreachable(super()._make_create_pvc_request(pvc, request_timeout))

    async def _make_delete_pod_request(self, *args: Any) -> bool:
        return await _unless_unreachable(super()._make_delete_pod_request(*args))


async def _unless_unreachable(request: Awaitable[bool]) -> bool:
    """KubeSpawner retries time-outs only; a refused connection deserves the same."""
    try:
        return await request
    except aiohttp.ClientConnectionError:
        return False
