"""The probes of a running container together: which of them run when, and what follows from them.

One probe by itself is in `probes`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from .probes import Probe, Target
from .status import ContainerState

Obj = dict[str, Any]


class Health:
    """Keeps `ready` and `started` of the container's state, and says when it has to be ended."""

    def __init__(
        self,
        spec: Obj,
        state: ContainerState,
        *,
        http: aiohttp.ClientSession,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        unhealthy: Callable[[str], None],
        failed: Callable[[str, Obj], None],
        wake: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._state = state
        self._http = http
        self._spawn = spawn
        self._unhealthy = unhealthy
        self._failed = failed
        self._wake = wake

    def note_start(self) -> None:
        """Without probes a container is well as soon as it runs."""
        self._state.started = "startupProbe" not in self._spec
        self._state.ready = self._state.started and "readinessProbe" not in self._spec

    def begin(self, target: Target) -> None:
        """The startup probe holds the others back."""
        if "startupProbe" in self._spec and not self._state.started:
            self._probe("startup", target)
            return
        for kind in ("readiness", "liveness"):
            self._probe(kind, target)

    def _probe(self, kind: str, target: Target) -> None:
        if spec := self._spec.get(f"{kind}Probe"):
            probe = Probe(
                kind,
                spec,
                target,
                self._http,
                lambda healthy: self._verdict(kind, spec, healthy, target),
                self._unhealthy,
            )
            self._spawn(probe.run())

    def _verdict(self, kind: str, spec: Obj, healthy: bool, target: Target) -> None:
        if kind == "readiness":
            self._state.ready = healthy
        elif kind == "startup" and healthy:
            self._state.started = True
            self._state.ready = "readinessProbe" not in self._spec
            self.begin(target)
        elif not healthy:
            self._failed(kind, spec)
        self._wake()
