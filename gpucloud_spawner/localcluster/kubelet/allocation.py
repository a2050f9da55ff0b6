"""What a pod holds of its node: its share of the resources, its devices, its address. Granted once,
written to the pod's directory so that a restarted kubelet takes it over, given back once.

When a pod asks, and what a refused one is told, is the pod worker's business.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..events import now
from ..gpus import Grant, NotEnoughDevices
from ..scheduling import pod_requests
from .host import Host

Obj = dict[str, Any]
STATE_FILE = "pod.json"


def saved_state(directory: Path) -> Obj | None:
    """What an earlier kubelet process has written about a pod; None if nothing that can be read."""
    try:
        saved = json.loads((directory / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    wanted = {"node", "ip", "startTime", "grant"}
    return saved if isinstance(saved, dict) and wanted <= saved.keys() else None


class Allocation:
    """One pod's part of its node."""

    def __init__(self, host: Host, uid: str, directory: Path) -> None:
        self.address = ""
        self.started_at = ""
        self._host = host
        self._uid = uid
        self._directory = directory
        self._devices: Grant = {}
        self._held = False

    def devices(self, container: str) -> dict[str, list[str]]:
        """The devices of one container, by resource."""
        return self._devices.get(container, {})

    def make(self, pod: Obj) -> None:
        """Takes what the pod asks for, or raises NotEnoughDevices and takes nothing."""
        requests = pod_requests(pod)
        self._check_room(requests)
        self._devices = self._host.devices.allocate(pod)
        self._host.granted[self._uid] = requests
        self.address = self._host.addresses.allocate()
        self.started_at = now()
        self._held = True
        self._save(pod)

    def _check_room(self, requests: dict[str, int]) -> None:
        for name, wanted in requests.items():
            used = sum(granted.get(name, 0) for granted in self._host.granted.values())
            capacity = self._host.capacity.get(name, 0)
            if used + wanted > capacity:
                raise NotEnoughDevices(name, wanted, used, capacity)

    def _save(self, pod: Obj) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        saved = {
            "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"],
            "node": self._host.name,
            "ip": self.address,
            "startTime": self.started_at,
            "grant": self._devices,
        }
        partial = self._directory / f"{STATE_FILE}.new"
        partial.write_text(json.dumps(saved))
        partial.replace(self._directory / STATE_FILE)

    def restore(self, pod: Obj, *, ended: bool) -> bool:
        """Takes over what an earlier kubelet process had granted; False if it had granted nothing.
        An ended pod holds nothing any more, but its address stays in its status."""
        saved = saved_state(self._directory)
        if saved is None:
            return False
        self.address, self.started_at = saved["ip"], saved["startTime"]
        self._devices = saved["grant"]
        if not ended:
            self._host.addresses.reserve(self.address)
            self._host.devices.restore(self._uid, self._devices)
            self._host.granted[self._uid] = pod_requests(pod)
            self._held = True
        return True

    def release(self) -> None:
        """Gives everything back. Once: the address may be another pod's by the second time."""
        if self._held:
            self._held = False
            self._host.granted.pop(self._uid, None)
            self._host.devices.release(self._uid)
            self._host.addresses.release(self.address)
