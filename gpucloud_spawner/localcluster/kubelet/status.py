"""What a kubelet reports about a pod, computed from what its containers do. Pure: no I/O, no clock
but the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .runtime import Exit

Obj = dict[str, Any]
SUCCEEDED, FAILED, RUNNING, PENDING = "Succeeded", "Failed", "Running", "Pending"


@dataclass
class ContainerState:
    """One container as the status shows it. Running if `running_since`, else ended if `exit`,
    else waiting. While it waits to be restarted `exit` is None and `last` says how it ended."""

    name: str
    image: str
    waiting: str = "ContainerCreating"
    message: str = ""
    running_since: str = ""
    exit: Exit | None = None
    last: Exit | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    identity: str = ""
    image_id: str = ""

    @property
    def ended(self) -> Exit | None:
        """How it ended, if it does not run: also while it waits for a restart."""
        return None if self.running_since else (self.exit or self.last)

    @property
    def succeeded(self) -> bool:
        return self.exit is not None and self.exit.code == 0

    def to_status(self) -> Obj:
        status: Obj = {
            "name": self.name,
            "state": self._state(),
            "lastState": _terminated(self.last, self.identity),
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": self.image_id,
        }
        if self.identity:
            status["containerID"] = self.identity
        return status

    def _state(self) -> Obj:
        if self.running_since:
            return {"running": {"startedAt": self.running_since}}
        if self.exit is not None:
            return _terminated(self.exit, self.identity)
        waiting = {"reason": self.waiting}
        if self.message:
            waiting["message"] = self.message
        return {"waiting": waiting}


def _terminated(ended: Exit | None, identity: str) -> Obj:
    if ended is None:
        return {}
    state = {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": ended.started_at,
        "finishedAt": ended.finished_at,
    }
    if ended.message:
        state["message"] = ended.message
    if identity:
        state["containerID"] = identity
    return {"terminated": state}


def phase(policy: str, inits: Sequence[ContainerState], mains: Sequence[ContainerState]) -> str:
    """The phase that follows from the containers, by the kubelet's rules."""
    for state in inits:
        ended = state.ended
        if ended is None or ended.code != 0:
            return FAILED if ended is not None and policy == "Never" else PENDING
    if any(not s.running_since and s.ended is None for s in mains):
        return PENDING
    if any(s.running_since for s in mains):
        return RUNNING
    codes = [state.ended.code for state in mains if state.ended]
    if policy == "Always":
        return RUNNING
    if all(code == 0 for code in codes):
        return SUCCEEDED
    return FAILED if policy == "Never" else RUNNING


def conditions(
    pod: Obj,
    phase_now: str,
    inits: Sequence[ContainerState],
    mains: Sequence[ContainerState],
    sandbox: bool,
    now: str,
) -> list[Obj]:
    """The kubelet's own conditions with their transition times; all others' as they are."""
    ended = phase_now in (SUCCEEDED, FAILED)
    uninitialised = [s.name for s in inits if not (s.ended and s.ended.code == 0)]
    unready = [state.name for state in mains if not state.ready]
    ready = _condition("Ready", unready, "ContainersNotReady", "containers with unready status")
    if phase_now == SUCCEEDED:
        ready = {"type": "Ready", "status": "False", "reason": "PodCompleted"}
    elif phase_now == FAILED:
        ready = {"type": "Ready", "status": "False", "reason": "PodFailed"}
    wanted = [
        {"type": "PodReadyToStartContainers", "status": str(sandbox and not ended)},
        _condition(
            "Initialized",
            uninitialised,
            "ContainersNotInitialized",
            "containers with incomplete status",
        ),
        ready,
        {**ready, "type": "ContainersReady"},
    ]
    if phase_now == SUCCEEDED:
        wanted[1] = {"type": "Initialized", "status": "True", "reason": "PodCompleted"}
    existing = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    own = {condition["type"] for condition in wanted}
    # Set by whoever bound the pod; a pod created with its nodeName has nobody else to say it.
    if "PodScheduled" not in existing:
        wanted.append({"type": "PodScheduled", "status": "True"})
        own.add("PodScheduled")
    result = [_dated(condition, existing.get(condition["type"]), pod, now) for condition in wanted]
    return result + [c for name, c in existing.items() if name not in own]


def _condition(kind: str, lacking: Sequence[str], reason: str, text: str) -> Obj:
    if not lacking:
        return {"type": kind, "status": "True"}
    message = f"{text}: [{' '.join(lacking)}]"
    return {"type": kind, "status": "False", "reason": reason, "message": message}


def _dated(condition: Obj, old: Obj | None, pod: Obj, now: str) -> Obj:
    unchanged = old is not None and old.get("status") == condition["status"]
    when = old["lastTransitionTime"] if old is not None and unchanged else now
    dated = {**condition, "lastProbeTime": None, "lastTransitionTime": when}
    if generation := pod["metadata"].get("generation"):
        dated["observedGeneration"] = generation
    return dated


def pod_status(
    pod: Obj,
    inits: Sequence[ContainerState],
    mains: Sequence[ContainerState],
    *,
    forced: Mapping[str, str],
    addresses: Mapping[str, str],
    started_at: str,
    sandbox: bool,
    now: str,
) -> Obj:
    """The whole status. `forced` overrides phase, reason and message (rejected, evicted, ...)."""
    policy = pod["spec"].get("restartPolicy", "Always")
    phase_now = forced.get("phase") or phase(policy, inits, mains)
    status: Obj = {
        "phase": phase_now,
        "conditions": conditions(pod, phase_now, inits, mains, sandbox, now),
        "startTime": started_at,
        "reason": forced.get("reason"),
        "message": forced.get("message"),
        "containerStatuses": [state.to_status() for state in mains] or None,
        "initContainerStatuses": [state.to_status() for state in inits] or None,
    }
    if host := addresses.get("host"):
        status |= {"hostIP": host, "hostIPs": [{"ip": host}]}
    if own := addresses.get("pod"):
        status |= {"podIP": own, "podIPs": [{"ip": own}]}
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    return status
