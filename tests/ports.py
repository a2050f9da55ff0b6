"""Free ports for servers that must be told theirs before they start.

From below the range from which the system gives ports to outgoing connections and to servers on
port 0: one of those would take a free port before the server that it was meant for. And from below
the ports of jobs, which share the machine's network on the local cluster. Test processes that run
beside each other take theirs from different parts.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import closing
from pathlib import Path

from gpucloud_spawner.model.jobs import FIRST_PORT

_FIRST, _LAST = 12_000, FIRST_PORT
_PARTS = 20
_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _part() -> range:
    last = _LAST
    if _SYSTEM.exists():
        lowest = int(_SYSTEM.read_text().split()[0])
        if lowest > _FIRST + 100 * _PARTS:  # else the system leaves none to choose from
            last = min(last, lowest)
    size = (last - _FIRST) // _PARTS
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST + size * (int(worker) % _PARTS)
    return range(first, first + size)


_ports = _part()
# begun anywhere, for somebody else may test on this machine; no port twice in a row
_candidates = itertools.cycle(_ports)
for _ in range(random.randrange(len(_ports))):  # noqa: S311
    next(_candidates)


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def free_ports(count: int = 1) -> int:
    """The first of ``count`` neighbouring free ports."""
    found: list[int] = []
    for port in itertools.islice(_candidates, 2 * len(_ports)):
        if not _is_free(port):
            found = []
        elif found and port != found[-1] + 1:  # the other end of our part
            found = [port]
        else:
            found.append(port)
        if len(found) == count:
            return found[0]
    raise RuntimeError(f"no {count} free ports among {_ports}")
