"""The states of an application, told from its pod: pending, running, stopped, failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .pods import is_scheduled, unschedulable_reason


@dataclass(frozen=True)
class State:
    """``name`` is one of pending, running, stopped, failed; ``reason`` says why in words."""

    name: str
    reason: str = ""


def state_of(pod: Mapping[str, Any] | None) -> State:
    """What ``pod`` (as JSON; None: there is none) means for its application."""
    if pod is None:
        return State("stopped")
    phase = pod["status"].get("phase") or "Pending"
    if pod["metadata"].get("deletionTimestamp"):
        return State("running" if phase == "Running" else "stopped", "It is stopping")
    if phase == "Succeeded":
        return State("stopped", "The server ended by itself")
    if phase == "Failed":
        return State("failed", _failure(pod))
    waiting = next(_of_containers(pod, "waiting"), None)
    if phase == "Running" and waiting is None:
        return State("running")
    return State("pending", _why_not_yet(pod, waiting))


def _of_containers(pod: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    status = pod["status"]
    for name in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(name) or ():
            found = (container.get("state") or {}).get(kind)
            if found is not None:
                yield found


def _failure(pod: Mapping[str, Any]) -> str:
    status = pod["status"]
    if status.get("message") or status.get("reason"):
        return str(status.get("message") or status["reason"])
    for ended in _of_containers(pod, "terminated"):
        if ended.get("exitCode"):
            why = ended.get("message") or ended.get("reason") or "Error"
            return f"{why} (exit code {ended['exitCode']})"
    return "The pod failed"


def _why_not_yet(pod: Mapping[str, Any], waiting: Mapping[str, Any] | None) -> str:
    if not is_scheduled(pod):
        return unschedulable_reason(pod) or "It waits for a machine"
    if waiting is None:
        return "It is starting"
    return str(waiting.get("message") or waiting.get("reason") or "It is starting")
