"""What became of a replica, in words for its owner. Pure: pod dicts in, text out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..model.pods import Pod, condition, container_status
from .manifests import CONTAINER, NO_CODE, NO_GANG, NO_PACKAGES, NO_STORE, STOPPED

_CODES = {
    NO_CODE: "its code could not be fetched",
    NO_PACKAGES: "a package could not be installed",
    NO_GANG: "the replicas did not all find each other in time",
    STOPPED: "it was told to stop",
    NO_STORE: "the S3 store did not answer",
}
_SIGNALS = {6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_LINE = 500
LINES = 30


def ended(pod: Pod) -> Mapping[str, Any]:
    """How the replica's container ended; empty while it has not, or where nobody knows."""
    state = container_status(pod, CONTAINER).get("state") or {}
    found: Mapping[str, Any] = state.get("terminated") or {}
    return found


def last_words(pod: Pod, what: str = "message") -> str:
    """What the runner itself says about its end: `message`, or a `hint`."""
    try:
        told = json.loads(ended(pod).get("message") or "")
    except ValueError:
        return ""
    text = told.get(what) if isinstance(told, dict) else None
    return str(text) if text else ""


def was_disrupted(pod: Pod) -> bool:
    """Whether the cluster ended it: node lost, drained or short of something, a pod of more
    importance. No fault of the script's."""
    if condition(pod, "DisruptionTarget").get("status") == "True":
        return True
    return (pod.get("status") or {}).get("reason") in ("Evicted", "NodeLost", "NodeShutdown")


def why_disrupted(pod: Pod) -> str:
    node = pod["spec"].get("nodeName") or "its machine"
    reason = condition(pod, "DisruptionTarget").get("reason") or ""
    if reason == "DeletionByTaintManager":
        return f"{node} was lost"
    if reason == "PreemptionByScheduler":
        return f"it had to make room on {node}"
    return f"it was evicted from {node}" + (f" ({reason})" if reason else "")


def why_ended(pod: Pod) -> str:
    """Why a replica failed, as the end of the sentence "worker-0 failed: ..."."""
    end = ended(pod)
    if was_disrupted(pod):
        return why_disrupted(pod)
    if end.get("reason") == "OOMKilled":
        return "it needed more memory than it has (OOMKilled); ask for more with memory"
    code = end.get("exitCode")
    if code is None:
        status = pod.get("status") or {}
        return str(status.get("message") or status.get("reason") or "its pod failed")[:_LINE]
    if code in _CODES:
        return last_words(pod)[:_LINE].strip() or _CODES[code]
    if code > 128:
        signal = _SIGNALS.get(code - 128, f"signal {code - 128}")
        return f"it was killed ({signal}, exit code {code})"
    return f"exit code {code}"


def tail(text: str) -> tuple[str, ...]:
    """The last lines of a log, each of a bearable length."""
    return tuple(line[:_LINE] for line in text.splitlines()[-LINES:])
