"""The hosts file of each pod (pod_dir/etc-hosts, in its containers $GPUCLOUD_MOUNTS/etc/hosts).

As a kubelet writes it: the pod's own names and its hostAliases. Here also what a cluster's DNS
would tell about the headless Services of the pod's namespace, because nothing else resolves names
for processes that are not in containers. Where the file is seen by a container is in `view`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..client import KubeClient
from ..informer import Informer

log = logging.getLogger(__name__)
Obj = dict[str, Any]
FILE = "etc-hosts"
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"
SYNC_SECONDS = 10.0
GATHER_SECONDS = 0.05  # pods of a Job come and go together: their files are written once
_TOP = """# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""


@dataclass(frozen=True)
class _Pod:
    namespace: str
    path: Path
    own: str  # the lines that do not change


class Hosts:
    """Keeps the files of all pods of this process up to date. Use as an async context manager."""

    def __init__(self, client: KubeClient) -> None:
        self._pods: dict[str, _Pod] = {}
        self._stale: set[str] = set()  # namespaces
        self._last: dict[str, str] = {}  # what was last written to the files of each
        self._timer: asyncio.TimerHandle | None = None
        self._slices = Informer(client, "endpointslices", handler=self._changed)

    async def __aenter__(self) -> Self:
        self._slices.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._slices.stop()

    async def synced(self) -> None:
        """Returns once the names are known: the pods of an earlier process have them already, and
        must not lose them meanwhile. Not later than that is worth."""
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await self._slices.synced()
        except TimeoutError:
            log.warning("the names of headless Services are not known yet")

    def add(self, pod: Obj, directory: Path) -> None:
        """From now on the pod, which has its address, has a file."""
        meta = pod["metadata"]
        if meta["uid"] in self._pods:
            return
        added = _Pod(meta["namespace"], directory / FILE, _own(pod))
        self._pods[meta["uid"]] = added
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = "\n".join(self._names(added.namespace))
        if names != self._last.get(added.namespace):
            self._last.pop(added.namespace, None)  # the others have yet to be told
        _write(added, names)

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        changed = new or old
        assert changed is not None
        if HEADLESS not in changed["metadata"].get("labels", {}):
            return
        self._stale.add(changed["metadata"]["namespace"])
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(GATHER_SECONDS, self._write_stale)

    def _write_stale(self) -> None:
        self._timer = None
        while self._stale:
            namespace = self._stale.pop()
            names = "\n".join(self._names(namespace))
            if names == self._last.get(namespace):
                continue
            self._last[namespace] = names
            for pod in self._pods.values():
                if pod.namespace == namespace:
                    _write(pod, names)

    def _names(self, namespace: str) -> Iterator[str]:
        """A line for each name that the namespace's headless Services give."""
        for key in sorted(self._slices.store):
            found = self._slices.store[key]
            meta = found["metadata"]
            labels = meta.get("labels", {})
            if meta["namespace"] == namespace and HEADLESS in labels and SERVICE_NAME in labels:
                yield from _lines(found, labels[SERVICE_NAME], namespace)


def _lines(found: Obj, service: str, namespace: str) -> Iterator[str]:
    endpoints = [e for e in found.get("endpoints") or [] if e["conditions"].get("ready", True)]
    # While a pod is replaced there are two of its name: the one that stays comes first.
    endpoints.sort(key=lambda e: (bool(e["conditions"].get("terminating")), e["addresses"]))
    for endpoint in endpoints:
        address = endpoint["addresses"][0]
        if name := endpoint.get("hostname"):
            yield f"{address}\t{_forms(f'{name}.{service}', namespace)}"
    for endpoint in endpoints:
        yield f"{endpoint['addresses'][0]}\t{_forms(service, namespace)}"


def _forms(name: str, namespace: str) -> str:
    """The full name first, as a resolver takes the first one for the canonical one."""
    whole = f"{name}.{namespace}.svc"
    return f"{whole}.cluster.local {whole} {name}.{namespace} {name}"


def _own(pod: Obj) -> str:
    spec, address = pod["spec"], pod["status"]["podIP"]
    hostname = spec.get("hostname") or pod["metadata"]["name"][:63]
    names = hostname
    if subdomain := spec.get("subdomain"):
        names = f"{_forms(f'{hostname}.{subdomain}', pod['metadata']['namespace'])} {hostname}"
    lines = [f"{address}\t{names}"]
    for alias in spec.get("hostAliases") or []:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}")
    return "\n".join(lines)


def _write(pod: _Pod, names: str) -> None:
    """Replaces the file, so that a reader sees the old one or the new one."""
    content = f"{_TOP}{pod.own}\n{names}\n"
    try:
        partial = pod.path.with_name(f"{FILE}.new")
        partial.write_text(content)
        partial.replace(pod.path)
    except OSError as error:  # its directory is being removed with it
        log.info("%s is not written: %s", pod.path, error)
