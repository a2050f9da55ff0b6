"""The conditions of a Job's status."""

from __future__ import annotations

from datetime import datetime

from ...client import Obj


def condition(kind: str, reason: str, message: str, now: datetime, status: str = "True") -> Obj:
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": time,
        "lastTransitionTime": time,
        "reason": reason,
        "message": message,
    }


def failure(reason: str, message: str, now: datetime) -> Obj:
    return condition("FailureTarget", reason, message, now)


def enough(now: datetime) -> Obj:
    message = "Reached expected number of succeeded pods"
    return condition("SuccessCriteriaMet", "CompletionsReached", message, now)


def is_true(job: Obj, kind: str) -> bool:
    conditions = (job.get("status") or {}).get("conditions", [])
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def final_condition(job: Obj) -> bool:
    """Whether the Job has ended and nothing about it will change."""
    return is_true(job, "Complete") or is_true(job, "Failed")


def set_suspended(status: Obj, suspended: bool, now: datetime) -> tuple[str, str, str] | None:
    """Writes whether it is suspended; the event to tell if that has changed. A resumed Job starts
    its time anew."""
    conditions = status.setdefault("conditions", [])
    known = next((c for c in conditions if c["type"] == "Suspended"), None)
    if (known is not None and known["status"] == "True") == suspended:
        if not conditions:
            del status["conditions"]
        return None
    reason, word = ("JobSuspended", "suspended") if suspended else ("JobResumed", "resumed")
    text = f"Job {word}"
    changed = condition("Suspended", reason, text, now, str(suspended))
    if known is None:
        conditions.append(changed)
    else:
        known.update(changed)
    if not suspended:
        status["startTime"] = changed["lastTransitionTime"]
    return ("Normal", word.capitalize(), text)
