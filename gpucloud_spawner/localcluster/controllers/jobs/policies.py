"""What a Job's rules say of its pods: which have failed, whether that counts, whether it is enough.

Pure, and in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ...client import Obj
from ...indexes import parse_indexes, small_number

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
ENDED = ("Succeeded", "Failed")


def phase(pod: Obj) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def deleting(pod: Obj) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def tracked(pod: Obj) -> bool:
    """Whether the Job has still to count it."""
    return TRACKING in pod["metadata"].get("finalizers", [])


def is_active(pod: Obj) -> bool:
    return phase(pod) not in ENDED and not deleting(pod)


def is_terminating(pod: Obj) -> bool:
    return deleting(pod) and phase(pod) not in ENDED


def is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def replaces_only_failed(job: Obj) -> bool:
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def is_failed(job: Obj, pod: Obj) -> bool:
    """A pod that is being deleted counts as failed too, unless the Job waits for its real end."""
    if phase(pod) == "Failed":
        return True
    return not replaces_only_failed(job) and deleting(pod) and phase(pod) != "Succeeded"


def index_of(job: Obj, pod: Obj) -> int | None:
    """The completion index of a pod; None if it has none that the Job knows."""
    index = small_number((pod["metadata"].get("annotations") or {}).get(INDEX, ""))
    return index if index is not None and index < job["spec"].get("completions", 0) else None


def index_failures(pod: Obj) -> tuple[int, int]:
    """How often its index had failed before this pod: what counts, and what was ignored."""
    notes = pod["metadata"].get("annotations") or {}
    return (
        small_number(notes.get(INDEX_FAILURES, "")) or 0,
        small_number(notes.get(INDEX_IGNORED, "")) or 0,
    )


def ended_at(pod: Obj) -> datetime:
    """When its last container ended, as far as that is known."""
    status = pod.get("status") or {}
    found = []
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated", {})
        if ended.get("finishedAt"):
            found.append(datetime.fromisoformat(ended["finishedAt"]))
    if found:
        return max(found)
    if deleting(pod):
        grace = timedelta(seconds=pod["metadata"].get("deletionGracePeriodSeconds", 0))
        return datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) - grace
    return datetime.now(UTC)


@dataclass(frozen=True)
class Verdict:
    """What the pod failure policy says of a failed pod."""

    action: str = "Count"
    message: str = ""

    @property
    def counts(self) -> bool:
        return self.action != "Ignore"


def judge(job: Obj, pod: Obj) -> Verdict:
    """The first rule that matches; without one the failure counts."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules", [])
    for number, rule in enumerate(rules):
        if "onExitCodes" in rule:
            message = _match_exit_codes(rule["onExitCodes"], pod)
        else:
            message = _match_conditions(rule.get("onPodConditions", []), pod)
        if message:
            action = rule["action"]
            return Verdict(action, f"{message} matching {action} rule at index {number}")
    return Verdict()


def _match_exit_codes(wanted: Obj, pod: Obj) -> str:
    status = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(kind, []):
            if wanted.get("containerName") not in (None, container["name"]):
                continue
            code = container.get("state", {}).get("terminated", {}).get("exitCode", 0)
            if code != 0 and (code in wanted["values"]) == (wanted["operator"] == "In"):
                name = _name(pod)
                return f"Container {container['name']} for pod {name} failed with exit code {code}"
    return ""


def _match_conditions(patterns: Iterable[Obj], pod: Obj) -> str:
    for pattern in patterns:
        for condition in (pod.get("status") or {}).get("conditions", []):
            if (condition["type"], condition["status"]) == (pattern["type"], pattern["status"]):
                return f"Pod {_name(pod)} has condition {pattern['type']}"
    return ""


def _name(pod: Obj) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def index_failed(job: Obj, pod: Obj) -> bool:
    """Whether this pod's end is the end of its index."""
    if not is_failed(job, pod):
        return False
    verdict = judge(job, pod)
    if verdict.action == "FailIndex":
        return True
    limit = job["spec"]["backoffLimitPerIndex"]
    return verdict.counts and index_failures(pod)[0] >= limit


def success_rule(job: Obj, succeeded: set[int]) -> str:
    """The message of the success rule that is met; "" if none is."""
    completions = job["spec"]["completions"]
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules", [])):
        done, wanted = succeeded, set[int]()
        if "succeededIndexes" in rule:
            wanted = parse_indexes(rule["succeededIndexes"], completions)
            done = succeeded & wanted
        needed = rule.get("succeededCount", len(wanted))
        if len(done) >= needed:
            return f"Matched rules at index {number}"
    return ""


def restarts(pods: Sequence[Obj]) -> int:
    """Restarts of containers in pods that are not done: they use up the limit of a Job whose pods
    restart their containers themselves."""
    total = 0
    for pod in pods:
        if phase(pod) in ("Running", "Pending"):
            status = pod.get("status") or {}
            for kind in ("containerStatuses", "initContainerStatuses"):
                total += sum(c.get("restartCount", 0) for c in status.get(kind, []))
    return total
