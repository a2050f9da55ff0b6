"""What is to be done for a Job: one look at it and at all its pods, without I/O.

The counts survive a crash at any moment, as in Kubernetes: a pod that has ended keeps a finalizer
until the Job's status names it (`uncountedTerminatedPods`, `completedIndexes`), and is added to
the counters only once the finalizer is gone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...client import Obj
from ...indexes import format_indexes, known_indexes
from . import policies
from .backoff import Backoff, Delays
from .conditions import (
    condition,
    enough,
    failure,
    final_condition,
    is_true,
    set_suspended,
)
from .template import pod_for

MOST_AT_ONCE = 500  # pods created by one look


@dataclass
class Decision:
    """What the controller has to do, in this order."""

    create: list[Obj] = field(default_factory=list)
    drop: list[Obj] = field(default_factory=list)  # deleted without being counted as failed
    delete: list[Obj] = field(default_factory=list)
    status: Obj = field(default_factory=dict)
    release: list[Obj] = field(default_factory=list)  # pods that lose their finalizer
    events: list[tuple[str, str, str]] = field(default_factory=list)
    backoff: Backoff = field(default_factory=Backoff)
    again: float | None = None  # seconds until the next look, if nothing happens before


def decide(job: Obj, pods: Sequence[Obj], backoff: Backoff, delays: Delays) -> Decision:
    return _Look(job, pods, backoff, delays).decide()


class _Look:
    """One look at one Job."""

    def __init__(self, job: Obj, pods: Sequence[Obj], backoff: Backoff, delays: Delays) -> None:
        self.job, self.spec, self.delays = job, job["spec"], delays
        self.now = datetime.now(UTC)
        self.indexed = self.spec["completionMode"] == "Indexed"
        self.per_index = "backoffLimitPerIndex" in self.spec
        self.pods = [p for p in pods if not self.indexed or self._index(p) is not None]
        self.strangers = [p for p in pods if self.indexed and self._index(p) is None]
        self.active = [p for p in pods if policies.is_active(p)]
        self.terminating = sum(policies.is_terminating(p) for p in pods)
        self.status: Obj = copy.deepcopy(job.get("status") or {})
        self.tracked = [p for p in self.pods if policies.tracked(p)]
        self._settle()
        self._count(backoff)
        self.outcome: Obj | None = None  # FailureTarget or SuccessCriteriaMet
        self.result = Decision(status=self.status, backoff=self.backoff)

    def _index(self, pod: Obj) -> int | None:
        return policies.index_of(self.job, pod)

    # What has happened

    def _settle(self) -> None:
        """Pods that the status names and that have lost their finalizer go into the counters."""
        uncounted = self.status.setdefault("uncountedTerminatedPods", {})
        held = {p["metadata"]["uid"] for p in self.tracked}
        for kind in ("succeeded", "failed"):
            named = uncounted.pop(kind, [])
            kept = [uid for uid in named if uid in held]
            if kept:
                uncounted[kind] = kept
            self.status[kind] = self.status.get(kind, 0) + len(named) - len(kept)
        self.uncounted: dict[str, list[str]] = uncounted

    def _count(self, backoff: Backoff) -> None:
        named = {uid for uids in self.uncounted.values() for uid in uids}
        fresh = [p for p in self.tracked if p["metadata"]["uid"] not in named]
        self.new_failed = [p for p in fresh if policies.is_failed(self.job, p)]
        succeeded = [p for p in fresh if policies.phase(p) == "Succeeded"]
        self.done: set[int] = set()
        self.failed_indexes: set[int] = set()
        if self.indexed:
            before = self._indexes("completedIndexes")
            succeeded = [p for p in succeeded if self._index(p) not in before]
            self.done = before | {i for p in succeeded if (i := self._index(p)) is not None}
            self.succeeded = len(self.done)
        else:
            waiting = len(self.uncounted.get("succeeded", []))
            self.succeeded = self.status["succeeded"] + waiting + len(succeeded)
        self.new_succeeded = succeeded
        counted = [p for p in self.new_failed if policies.judge(self.job, p).counts]
        self.failed = self.status["failed"] + len(self.uncounted.get("failed", [])) + len(counted)
        if self.per_index:
            ended = {self._index(p) for p in self.tracked if policies.index_failed(self.job, p)}
            known = {i for i in ended if i is not None} - self.done
            self.failed_indexes = self._indexes("failedIndexes") | known
        times = [policies.ended_at(p) for p in succeeded]
        self.backoff = backoff.after(times, [policies.ended_at(p) for p in counted])
        self.held = self._kept_for_their_count() if self.per_index else {}

    def _indexes(self, name: str) -> set[int]:
        return known_indexes(self.status.get(name, ""), self.spec["completions"])

    def _kept_for_their_count(self) -> dict[int, Obj]:
        """The last failed pod of each index that waits for another one: it knows how often the
        index has failed, so it stays until its successor has been told."""
        held: dict[int, Obj] = {}
        busy = {self._index(p) for p in self.active} | self.done | self.failed_indexes
        for pod in self.tracked:
            index = self._index(pod)
            if index is None or index in busy or not policies.is_failed(self.job, pod):
                continue
            other = held.get(index)
            if other is None or sum(policies.index_failures(other)) <= sum(
                policies.index_failures(pod)
            ):
                held[index] = pod
        return held

    # What follows

    def decide(self) -> Decision:
        result, status = self.result, self.status
        if final_condition(self.job):
            result.release = [p for p in (*self.tracked, *self.strangers) if policies.tracked(p)]
            result.status = self.job.get("status") or {}
            return result
        suspended = bool(self.spec.get("suspend"))
        if "startTime" not in status and not suspended:
            status["startTime"] = self._time()
        self.outcome = self._verdict(suspended)
        left = list(self.active)
        if self.outcome is None and "deletionTimestamp" not in self.job["metadata"]:
            left = self._manage(suspended)
            if self._complete(left):
                self.outcome = enough(self.now)
            else:
                event = set_suspended(status, suspended, self.now)
                result.events += [event] if event else []
        if self.outcome is not None:
            result.create, result.drop = [], []
            result.delete, left = list(self.active), []
        self._track()
        self._write(left)
        self._finish()
        return result

    def _time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _verdict(self, suspended: bool) -> Obj | None:
        """How the Job ends, if what is known already decides it."""
        for kind in ("FailureTarget", "SuccessCriteriaMet"):
            for known in self.status.get("conditions", []):
                if known["type"] == kind and known["status"] == "True":
                    return dict(known)
        for pod in self.new_failed:
            verdict = policies.judge(self.job, pod)
            if verdict.action == "FailJob":
                return failure("PodFailurePolicy", verdict.message, self.now)
        if self._past_limit():
            message = "Job has reached the specified backoff limit"
            return failure("BackoffLimitExceeded", message, self.now)
        left = self._time_left(suspended)
        if left is not None and left <= 0:
            message = "Job was active longer than specified deadline"
            return failure("DeadlineExceeded", message, self.now)
        self._look_again(left)
        return self._verdict_on_indexes()

    def _verdict_on_indexes(self) -> Obj | None:
        failed = len(self.failed_indexes)
        if failed > self.spec.get("maxFailedIndexes", failed):
            message = "Job has exceeded the specified maximal number of failed indexes"
            return failure("MaxFailedIndexesExceeded", message, self.now)
        if failed and failed + len(self.done) >= self.spec["completions"]:
            return failure("FailedIndexes", "Job has failed indexes", self.now)
        if message := policies.success_rule(self.job, self.done) if self.indexed else "":
            return condition("SuccessCriteriaMet", "SuccessPolicy", message, self.now)
        return None

    def _past_limit(self) -> bool:
        limit = self.spec["backoffLimit"]
        if self.failed > limit:
            return True
        if self.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        restarts = policies.restarts(self.pods)
        return restarts > 0 if limit == 0 else restarts >= limit

    def _time_left(self, suspended: bool) -> float | None:
        seconds = self.spec.get("activeDeadlineSeconds")
        started = self.status.get("startTime")
        if seconds is None or not started or suspended:
            return None
        return float(seconds) - (self.now - datetime.fromisoformat(started)).total_seconds()

    def _look_again(self, seconds: float | None) -> None:
        if seconds is not None:
            again = self.result.again
            self.result.again = seconds if again is None else min(seconds, again)

    def _complete(self, left: list[Obj]) -> bool:
        if left or self.result.create:
            return False
        if "completions" not in self.spec:
            return self.succeeded > 0
        return bool(self.succeeded >= self.spec["completions"])

    # The pods

    def _manage(self, suspended: bool) -> list[Obj]:
        """Which pods there are to be; returns the active ones that stay."""
        if suspended:
            self.result.drop = list(self.active)
            return []
        wanted = self._wanted()
        surplus = self._surplus(len(self.active) - wanted)
        if surplus:
            self.result.drop = surplus
            return [p for p in self.active if p not in surplus]
        waits = self.terminating if policies.replaces_only_failed(self.job) else 0
        missing = min(wanted - len(self.active) - waits, MOST_AT_ONCE)
        if missing > 0:
            self._replace(missing)
        return list(self.active)

    def _wanted(self) -> int:
        parallelism = int(self.spec["parallelism"])
        if "completions" not in self.spec:
            return len(self.active) if self.succeeded else parallelism
        return max(min(self.spec["completions"] - self.succeeded, parallelism), 0)

    def _surplus(self, count: int) -> list[Obj]:
        """Pods of no index, second pods of one, then those that have got least far."""
        removed: list[Obj] = []
        if self.indexed:
            seen: set[int] = set(self.done)
            for pod in self.active:
                index = self._index(pod)
                if index is None or index in seen:
                    removed.append(pod)
                else:
                    seen.add(index)
        rest = [p for p in self.active if p not in removed]
        rest.sort(key=lambda p: (policies.phase(p) == "Running", policies.is_ready(p)))
        return removed + rest[: max(count - len(removed), 0)]

    def _replace(self, missing: int) -> None:
        if not self.per_index:
            left = self.delays.remaining(self.backoff.failures, self.backoff.last, self.now)
            if left > 0:
                self._look_again(left)
                return
        if not self.indexed:
            self.result.create = [pod_for(self.job, None) for _ in range(missing)]
            return
        for index in self._pending_indexes():
            if len(self.result.create) == missing:
                break
            replaced = self.held.get(index)
            if replaced is not None:
                failures = sum(policies.index_failures(replaced)) + 1
                ended = policies.ended_at(replaced)
                left = self.delays.remaining(failures, ended, self.now)
                if left > 0:
                    self._look_again(left)
                    continue
            self.result.create.append(pod_for(self.job, index, replaced))

    def _pending_indexes(self) -> list[int]:
        taken = {self._index(p) for p in self.active} | self.done | self.failed_indexes
        if policies.replaces_only_failed(self.job):
            taken |= {self._index(p) for p in self.pods if policies.is_terminating(p)}
        return [i for i in range(self.spec["completions"]) if i not in taken]

    # The books

    def _track(self) -> None:
        """Names what has ended in the status, and lets go of what may go."""
        gone = "deletionTimestamp" in self.job["metadata"]
        held = {p["metadata"]["uid"] for p in self.held.values()} if not self.outcome else set()
        for pod in self.tracked:
            failed, uid = policies.is_failed(self.job, pod), pod["metadata"]["uid"]
            ended = failed or policies.phase(pod) == "Succeeded"
            if not (gone or self.outcome or ended):
                continue
            if uid in held and not gone:
                continue  # until its successor is seen
            self.result.release.append(pod)
            self._name(pod, uid, failed)
        self.result.release += [p for p in self.strangers if policies.tracked(p)]

    def _name(self, pod: Obj, uid: str, failed: bool) -> None:
        if any(uid in uids for uids in self.uncounted.values()):
            return
        if policies.phase(pod) == "Succeeded":
            if not self.indexed:  # an index needs no second note
                self.uncounted.setdefault("succeeded", []).append(uid)
            return
        if self.outcome is not None:
            # A Job that fails takes its running pods along; one that has enough lets go of them.
            lost = self.outcome["type"] == "FailureTarget"
            failed = lost or policies.phase(pod) == "Failed"
        if failed and policies.judge(self.job, pod).counts:
            self.uncounted.setdefault("failed", []).append(uid)

    def _write(self, left: list[Obj]) -> None:
        status = self.status
        if self.indexed:
            status["succeeded"] = len(self.done)
            status["completedIndexes"] = format_indexes(self.done)
            status["failedIndexes"] = format_indexes(self.failed_indexes)
        status["active"] = len(left) + len(self.result.create)
        status["ready"] = sum(policies.is_ready(p) for p in left)
        status["terminating"] = self.terminating + len(self.result.drop + self.result.delete)
        if self.outcome is not None and not is_true(self.job, self.outcome["type"]):
            status.setdefault("conditions", []).append(self.outcome)
        for name in ("active", "succeeded", "failed", "completedIndexes", "failedIndexes"):
            if not status.get(name):
                status.pop(name, None)

    def _finish(self) -> None:
        """The last word, once every pod has ended and is in the counters."""
        if self.outcome is None or self.status["terminating"] or self.result.release:
            return
        if self.uncounted:
            return
        reason, message = self.outcome["reason"], self.outcome["message"]
        succeeded = self.outcome["type"] == "SuccessCriteriaMet"
        kind = "Complete" if succeeded else "Failed"
        self.status["conditions"].append(condition(kind, reason, message, self.now))
        if succeeded:
            self.status["completionTime"] = self._time()
            self.result.events.append(("Normal", "Completed", "Job completed"))
        else:
            self.result.events.append(("Warning", reason, message))
