"""Which loopback networks the nodes of a cluster use for their pods: none that another local
cluster of this machine uses now, and after a restart the same ones if they are free.

Only the choice of addresses; who gets which address in a network is the kubelet's business.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Self

FIRST, LAST = 64, 191  # 127.64.0.0/16 ... 127.191.0.0/16
STATE_FILE = "networks.json"


class Networks:
    """Holds so many networks while the `with` block lasts; `cidrs` says which."""

    def __init__(self, data: Path, count: int) -> None:
        self.cidrs: list[str] = []
        self._path = data / STATE_FILE
        self._count = count
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        saved: list[int] = []
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            saved = json.loads(self._path.read_text())
        taken: list[int] = []
        for number in [*saved, *(n for n in range(FIRST, LAST + 1) if n not in saved)]:
            if len(taken) < self._count and self._take(number):
                taken.append(number)
        if len(taken) < self._count:
            self._stack.close()
            raise RuntimeError("no free loopback network is left for the nodes' pods")
        self._path.write_text(json.dumps(taken))
        self.cidrs = [f"127.{number}.0.0/16" for number in taken]
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _take(self, number: int) -> bool:
        # A name in Linux's abstract namespace: it is free again the moment its holder is gone.
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0gpucloud-localcluster-127.{number}")
        except OSError:
            holder.close()
            return False
        self._stack.enter_context(holder)
        return True
