"""How a job stands, from its record and its objects in the cluster. Pure.

Level-triggered: the whole state is derived each time from what there is now, and from what was
stored of what no object tells any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..model import labels
from ..model.job_record import JobRecord, Replica, first_replicas
from ..model.pods import Pod, condition, container_status, is_scheduled, start_trouble
from .manifests import CONTAINER, INDEX, job_name
from .objects import JobObjects
from .words import ended, was_disrupted, why_disrupted, why_ended

_FAILURES = "batch.kubernetes.io/job-index-failure-count"
_OVER = ("Succeeded", "Failed")

Place = tuple[str, int]  # role and index


@dataclass(frozen=True)
class Outcome:
    """That a job is over, and why. ``pod``: of the replica that failed first."""

    state: str
    reason: str = ""
    pod: Pod | None = None
    replica: str = ""


@dataclass(frozen=True)
class View:
    """A job at one moment."""

    state: str  # queued, starting or running
    replicas: tuple[Replica, ...]
    outcome: Outcome | None
    missing: tuple[str, ...]  # roles whose Kubernetes Job is not there
    suspended: bool  # Kueue has not let it go
    incomplete: bool  # some replicas hold machines while others are not there
    pods: Mapping[Place, Pod]  # the pod that fills each place

    def waiting(self) -> list[tuple[Replica, Pod | None]]:
        """The replicas that do not run yet."""
        return [
            (r, self.pods.get((r.role, r.index))) for r in self.replicas if r.state == "pending"
        ]


def look(record: JobRecord, objects: JobObjects) -> View:
    """How ``record``'s job stands in the cluster."""
    jobs = {role: objects.jobs.get(job_name(record.id, role)) for role in record.spec.roles}
    stories = _stories(objects.pods.values())
    pods = {place: story[-1] for place, story in stories.items()}
    before = {(r.role, r.index): r for r in record.replicas or first_replicas(record.spec)}
    replicas = tuple(
        _replica(before[place], stories.get(place, []), jobs[place[0]])
        for place in record.spec.members()
    )
    found = [job for job in jobs.values() if job is not None]
    return View(
        state=_state(record, replicas, pods),
        replicas=replicas,
        outcome=_outcome(record, jobs, replicas, stories),
        missing=tuple(role for role, job in jobs.items() if job is None),
        suspended=any(job["spec"].get("suspend") for job in found),
        incomplete=_is_incomplete(record, replicas, pods),
        pods=pods,
    )


def _stories(pods: Iterable[Pod]) -> dict[Place, list[Pod]]:
    """All pods of each place, the one that fills it last."""
    found: dict[Place, list[Pod]] = {}
    for pod in pods:
        place = place_of(pod)
        if place is not None:
            found.setdefault(place, []).append(pod)
    for story in found.values():
        story.sort(key=_order)
    return found


def place_of(pod: Pod) -> Place | None:
    """Role and index of a replica's pod."""
    meta = pod["metadata"]
    role = (meta.get("labels") or {}).get(labels.ROLE, "")
    index = (meta.get("annotations") or {}).get(INDEX, "")
    return (role, int(index)) if role and index.isdigit() else None


def _order(pod: Pod) -> tuple[str, int, bool, str]:
    # creation times have whole seconds; a new pod comes only after the one before it has ended
    meta = pod["metadata"]
    return meta["creationTimestamp"], _failures(pod), _phase(pod) not in _OVER, meta["uid"]


def _failures(pod: Pod) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(_FAILURES, "0")
    return int(text) if text.isdigit() else 0


def _phase(pod: Pod) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _replica(before: Replica, story: list[Pod], job: Mapping[str, Any] | None) -> Replica:
    if not story:
        if before.state == "succeeded" or (job is not None and _is_complete(job)):
            return replace(before, state="succeeded", reason="")
        return replace(before, state="pending")
    pod = story[-1]
    uid, phase = pod["metadata"]["uid"], _phase(pod)
    again = before.restarts + (before.pod not in ("", uid))
    now = replace(
        before,
        pod=uid,
        node=pod["spec"].get("nodeName") or "",
        restarts=max(again, len(story) - 1, _failures(pod)),
        exit_code=ended(pod).get("exitCode"),
        reason=_pending_reason(before, pod),
        state="pending",
    )
    if phase == "Succeeded":
        return replace(now, state="succeeded", reason="")
    if was_disrupted(pod):
        return replace(now, reason=f"Starts again: {why_disrupted(pod)}.")
    if phase == "Failed":
        return replace(now, state="failed", reason=_sentence(why_ended(pod)))
    if phase == "Running" and not pod["metadata"].get("deletionTimestamp"):
        return replace(now, state="running", reason="")
    return now


def _pending_reason(before: Replica, pod: Pod) -> str:
    trouble = start_trouble(container_status(pod, CONTAINER))
    if trouble:
        return trouble.message
    # why it starts again stays to be told until it runs
    return before.reason if before.reason.startswith("Starts again") else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _state(record: JobRecord, replicas: tuple[Replica, ...], pods: Mapping[Place, Pod]) -> str:
    if all(replica.state in ("running", "succeeded") for replica in replicas):
        return "running"
    if record.started_at is not None:
        return "running"  # a replica that starts again does not unmake that
    placed = [pods.get((r.role, r.index)) for r in replicas if r.state != "succeeded"]
    if all(pod is not None and is_scheduled(pod) for pod in placed):
        return "starting"
    return "queued"


def _is_incomplete(
    record: JobRecord, replicas: tuple[Replica, ...], pods: Mapping[Place, Pod]
) -> bool:
    # nobody who trains waits for an evaluator: one that is lost must not end the training
    spared = "evaluator" if record.started_at is not None else ""
    lacking = any(r.state not in ("running", "succeeded") for r in replicas if r.role != spared)
    # one that only starts holds its GPUs, too
    held = (pod for pod in pods.values() if is_scheduled(pod) and _phase(pod) not in _OVER)
    return lacking and next(held, None) is not None


# --- over -------------------------------------------------------------------------------------


def _true(job: Mapping[str, Any], *kinds: str) -> Mapping[str, Any]:
    for kind in kinds:
        found = condition(job, kind)
        if found.get("status") == "True":
            return found
    return {}


def _is_complete(job: Mapping[str, Any]) -> bool:
    return bool(_true(job, "Complete", "SuccessCriteriaMet"))


def is_ending(job: Mapping[str, Any]) -> bool:
    """Whether a Kubernetes Job starts no pod any more, and ends those that it has."""
    return bool(_true(job, "Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"))


def at_the_end(replicas: tuple[Replica, ...], state: str) -> tuple[Replica, ...]:
    """The replicas of a job that is over: what still ran ends with it."""
    ends = "succeeded" if state == "succeeded" else "failed"
    return tuple(
        replace(r, state=ends, reason="Ended with the job.") if r.state == "running" else r
        for r in replicas
    )  # those that never ran stay pending


def _outcome(
    record: JobRecord,
    jobs: Mapping[str, Mapping[str, Any] | None],
    replicas: tuple[Replica, ...],
    stories: Mapping[Place, list[Pod]],
) -> Outcome | None:
    if all(_has_succeeded(role, jobs[role], replicas) for role in record.spec.deciding_roles):
        return Outcome("succeeded")
    for role, job in jobs.items():
        failed = _true(job, "FailureTarget", "Failed") if job is not None else {}
        if failed:
            return _failed(record, role, failed, stories)
    return None


def _has_succeeded(role: str, job: Mapping[str, Any] | None, replicas: tuple[Replica, ...]) -> bool:
    if job is not None and _is_complete(job):
        return True
    if job is not None and _true(job, "FailureTarget", "Failed"):
        return False  # a script may end well when it is told that its time is over
    # the pods tell it sooner than their Job
    return all(r.state == "succeeded" for r in replicas if r.role == role)


def _failed(
    record: JobRecord,
    role: str,
    failed: Mapping[str, Any],
    stories: Mapping[Place, list[Pod]],
) -> Outcome:
    if failed.get("reason") == "DeadlineExceeded":
        seconds = record.spec.timeout_seconds
        return Outcome("failed", f"It was not done within its time of {_duration(seconds)}.")
    first = _first_failure(stories)
    if first is None:
        text = failed.get("message") or failed.get("reason") or "no further word from Kubernetes"
        return Outcome("failed", f"The replicas of role {role} failed: {text}.")
    name = "-".join(map(str, place_of(first) or ()))
    return Outcome("failed", f"{name} failed: {why_ended(first)}.", first, name)


def _first_failure(stories: Mapping[Place, list[Pod]]) -> Pod | None:
    """The pod that failed first in the last round: its peers fell over it."""
    failed = [story[-1] for story in stories.values() if _phase(story[-1]) == "Failed"]
    own = [pod for pod in failed if not was_disrupted(pod)] or failed
    return min(own, key=_ended_at, default=None)


def _ended_at(pod: Pod) -> tuple[str, int]:
    end = ended(pod)
    # in the same second, the one that says most: peers are killed, or lose a connection
    return end.get("finishedAt") or "9", _RANK.get(end.get("exitCode", 0), 0)


_RANK = {137: 1, 143: 2, 134: 1}


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
