"""Finding other replicas: the pod's hosts file first where there is a private one, then the system.

Pods of the local cluster share the machine's network, so no resolver knows their names; a hosts
file per pod does, kept in $GPUCLOUD_MOUNTS. On Kubernetes the system's resolver knows all.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


class Names:
    """Looks names up; ``hosts`` is the private hosts file, read anew each time: it grows."""

    def __init__(self, hosts: Path | None = None) -> None:
        if hosts is None and (mounts := os.environ.get("GPUCLOUD_MOUNTS")):
            hosts = Path(mounts) / "etc" / "hosts"
        self._hosts = hosts

    def address(self, name: str) -> str | None:
        """An address of ``name``; None as long as there is none."""
        return self._private(name) or _system(name)

    def reachable(self, name: str) -> str:
        """What to tell a library that resolves by itself: the name if it can, else an address."""
        return name if _system(name) else self._private(name) or name

    def _private(self, name: str) -> str | None:
        if self._hosts is None:
            return None
        try:
            lines = self._hosts.read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            address, *names = line.partition("#")[0].split() or [""]
            if name in names:
                return address
        return None


def _system(name: str) -> str | None:
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        return None
