"""A pod's state in the words of `kubectl get pods`: Init:0/1, CrashLoopBackOff, Terminating, ..."""

from __future__ import annotations

from typing import Any

from .ages import age_of
from .store import Object

_QUIET_WAIT = ("", "PodInitializing")


def pod_ready(pod: Object) -> str:
    ready = sum(
        1
        for status in _statuses(pod, "containerStatuses")
        if status.get("ready") and status.get("state", {}).get("running") is not None
    )
    return f"{ready}/{len(pod['spec']['containers'])}"


def pod_restarts(pod: Object) -> str:
    statuses = _statuses(pod, "containerStatuses")
    if _initialising(pod) is not None:
        statuses = _statuses(pod, "initContainerStatuses")
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    ended = [
        status["lastState"]["terminated"].get("finishedAt")
        for status in statuses
        if status.get("lastState", {}).get("terminated")
    ]
    last = max(filter(None, ended), default=None)
    if not restarts or last is None:
        return str(restarts)
    return f"{restarts} ({age_of(last)} ago)"


def pod_status(pod: Object) -> str:
    status = pod["status"]
    word = str(status.get("reason") or status.get("phase", ""))
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            word = "SchedulingGated"
    word = _initialising(pod) or _running(pod, word)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return word


def _statuses(pod: Object, kind: str) -> list[dict[str, Any]]:
    statuses: list[dict[str, Any]] = pod["status"].get(kind, [])
    return statuses


def _condition(pod: Object, kind: str) -> bool:
    return any(
        c["type"] == kind and c["status"] == "True" for c in pod["status"].get("conditions", [])
    )


def _initialising(pod: Object) -> str | None:
    """The word for a pod whose init containers have not all succeeded."""
    if _condition(pod, "Initialized"):
        return None
    total = len(pod["spec"].get("initContainers", []))
    for i, status in enumerate(_statuses(pod, "initContainerStatuses")):
        state = status.get("state", {})
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None:
            if ended.get("exitCode") == 0:
                continue
            return f"Init:{_ended(ended)}"
        if waiting is not None and waiting.get("reason", "") not in _QUIET_WAIT:
            return f"Init:{waiting['reason']}"
        return f"Init:{i}/{total}"
    return None


def _ended(terminated: dict[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode')}"


def _running(pod: Object, word: str) -> str:
    """The word of the first container that has one; a pod that still runs something is not
    Completed."""
    running = False
    for status in reversed(_statuses(pod, "containerStatuses")):
        state = status.get("state", {})
        if state.get("waiting", {}).get("reason"):
            word = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            word = _ended(state["terminated"])
        elif status.get("ready") and state.get("running") is not None:
            running = True
    if word == "Completed" and running:
        return "Running" if _condition(pod, "Ready") else "NotReady"
    return word
