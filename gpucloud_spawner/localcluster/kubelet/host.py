"""What the pods of one node share: its name, addresses, devices, volumes, images, settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from ..client import KubeClient
from ..events import EventRecorder
from ..gpus import DeviceManager
from .hosts import Hosts
from .images import ImageStore
from .volumes import Volumes


@dataclass(frozen=True)
class Timing:
    """Waits in seconds; the defaults are a kubelet's."""

    restart_backoff: float = 10.0  # before the second restart; doubles
    restart_backoff_max: float = 300.0
    restart_backoff_reset: float = 600.0  # a run this long forgets earlier crashes
    retry: float = 1.0  # of what a pod refers to and is not there
    retry_max: float = 10.0
    memory_poll: float = 5.0
    shutdown_grace: float = 5.0


class Addresses:
    """The loopback addresses of one node's pods. A freed one is used again as late as possible, so
    that a client with an old address meets nobody rather than another user's pod."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._used: set[str] = set()
        self._next = 2  # .0 is the network, .1 the node

    @property
    def node(self) -> str:
        return str(self.network[1])

    def allocate(self) -> str:
        size = self.network.num_addresses
        for _ in range(size):
            address = str(self.network[self._next])
            self._next = self._next + 1 if self._next < size - 2 else 2
            if address not in self._used:
                self._used.add(address)
                return address
        raise RuntimeError(f"no free address in {self.network}")

    def reserve(self, address: str) -> None:
        self._used.add(address)
        if ipaddress.ip_address(address) in self.network:
            offset = int(ipaddress.ip_address(address)) - int(self.network[0])
            self._next = max(self._next, min(offset + 1, self.network.num_addresses - 2))

    def release(self, address: str) -> None:
        self._used.discard(address)


@dataclass
class Host:
    """One node, as its pod workers need it."""

    name: str
    client: KubeClient
    events: EventRecorder
    data: Path
    images: ImageStore
    volumes: Volumes
    hosts: Hosts
    devices: DeviceManager
    addresses: Addresses
    http: aiohttp.ClientSession
    allocatable: dict[str, str]
    # What the node has granted, by pod uid, for the check at a pod's start.
    granted: dict[str, dict[str, int]] = field(default_factory=dict)
    # Pods that have left the API while their processes still end.
    leaving: set[str] = field(default_factory=set)
    capacity: dict[str, int] = field(default_factory=dict)  # allocatable, as numbers
    timing: Timing = field(default_factory=Timing)
    watch_memory: Callable[[], None] = lambda: None

    @property
    def pods(self) -> Path:
        return self.data / "pods"
