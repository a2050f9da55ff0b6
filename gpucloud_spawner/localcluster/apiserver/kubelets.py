"""The way to the kubelets of this cluster: where a pod's one listens, and what lets us in.

What is asked of them is in `podlogs` and `podexec`.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from yarl import URL

from .errors import bad_request
from .resources import served
from .store import Object, Store

TOKEN_SECRET = ("kube-system", "kubelet-api")
_CONNECT_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)


class Kubelets:
    """One HTTP session for all of them."""

    def __init__(self, store: Store, token: str) -> None:
        self._store = store
        # They read the same token from a Secret and serve only who knows it.
        self.headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        # A kubelet's certificate is its own; the connection does not leave the machine.
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_CONNECT_TIMEOUT)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    def url(self, pod: Object, what: str, container: str) -> URL:
        """What the kubelet of a scheduled pod serves about one of its containers."""
        meta = pod["metadata"]
        path = f"/{what}/{meta['namespace']}/{meta['name']}/{container}"
        return self.node_url(pod["spec"]["nodeName"], path)

    def node_url(self, node_name: str, path: str) -> URL:
        """A path of a node's kubelet."""
        node = self._store.get(served("nodes"), "", node_name).load()
        port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        address = _address(node)
        if not address or not port:
            raise bad_request(f"the kubelet of node {node_name} serves nothing about its pods")
        return URL.build(scheme="https", host=address, port=port, path=path)


def choose_container(pod: Object, asked: str) -> str:
    """The container that a request names, or the only one."""
    spec = pod["spec"]
    names = [c["name"] for c in spec["containers"]]
    initial = [c["name"] for c in spec.get("initContainers", [])]
    name = pod["metadata"]["name"]
    if asked:
        if asked not in names + initial:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1 and not initial:
        return str(names[0])
    choices = (
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    )
    if initial:
        choices += f" or one of the init containers: [{' '.join(initial)}]"
    raise bad_request(choices)


def status_of(pod: Object, container: str) -> dict[str, Any]:
    status = pod.get("status", {})
    for kind in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(kind, []):
            if entry["name"] == container:
                return entry
    return {}


def _address(node: Object) -> str:
    for entry in node["status"].get("addresses", []):
        if entry["type"] == "InternalIP":
            return str(entry["address"])
    return ""
