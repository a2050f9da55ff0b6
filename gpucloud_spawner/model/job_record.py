"""How a job stands: what is stored of it, and what the API says about it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .jobs import JobSpec, replica_name
from .usage import rfc3339

STATES = ("queued", "starting", "running", "succeeded", "failed", "stopped")
OVER = ("succeeded", "failed", "stopped")
REPLICA_STATES = ("pending", "running", "succeeded", "failed")


@dataclass(frozen=True)
class Replica:
    """One place in a job, whichever pod fills it at the moment."""

    role: str
    index: int
    state: str = "pending"
    reason: str = ""
    node: str = ""
    restarts: int = 0
    exit_code: int | None = None
    gpus: int = 0
    pod: str = ""  # uid of the pod that fills it

    @property
    def name(self) -> str:
        return replica_name(self.role, self.index)

    def as_json(self) -> dict[str, Any]:
        told = {"name": self.name, **asdict(self)}
        del told["pod"]
        return told


@dataclass(frozen=True)
class Failure:
    """Which replica failed first, and its last words."""

    replica: str
    exit_code: int | None
    lines: tuple[str, ...] = ()
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "lines": list(self.lines), "hint": self.hint or None}


@dataclass(frozen=True)
class JobRecord:
    """A job as it is stored. Times are seconds since 1970 (UTC); None: not yet.

    ``launched_at``: all its objects were made; they are never made again. ``incomplete_at``: since
    then some replicas hold machines while others are not there, or may not even be made.
    ``closed_at``: over, and none of its objects is left.
    """

    id: str
    spec: JobSpec
    user: str
    namespace: str
    bucket: str
    secret: str
    port: int
    created_at: int
    state: str = "queued"
    reason: str = ""
    stop_requested: bool = False
    launched_at: int | None = None
    started_at: int | None = None
    incomplete_at: int | None = None
    ended_at: int | None = None
    closed_at: int | None = None
    replicas: tuple[Replica, ...] = ()
    failure: Failure | None = None
    version: int = 0

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def prefix(self) -> str:
        """Where its logs, checkpoints and curves are in the user's bucket."""
        return f"jobs/{self.id}/"

    def place(self, folder: str) -> str | None:
        return f"s3://{self.bucket}/{self.prefix}{folder}/" if self.bucket else None


def first_replicas(spec: JobSpec) -> tuple[Replica, ...]:
    """The replicas of a job of which nothing is known yet."""
    return tuple(Replica(role, index, gpus=spec.gpus_of(role)) for role, index in spec.members())


def replicas_to_json(replicas: tuple[Replica, ...]) -> str:
    return json.dumps([asdict(replica) for replica in replicas])


def replicas_from_json(text: str) -> tuple[Replica, ...]:
    return tuple(Replica(**values) for values in json.loads(text or "[]"))


def failure_to_json(failure: Failure | None) -> str:
    return json.dumps(asdict(failure)) if failure else ""


def failure_from_json(text: str) -> Failure | None:
    if not text:
        return None
    values = json.loads(text)
    return Failure(**{**values, "lines": tuple(values["lines"])})


@dataclass(frozen=True)
class Bill:
    """What a job has used up to now; money as text in the site's currency."""

    gpu_seconds: int
    cost: str


def job_json(record: JobRecord, bill: Bill, currency: str) -> dict[str, Any]:
    """A job as the API tells it."""
    spec = record.spec
    return {
        "id": record.id,
        "name": spec.name,
        "user": record.user,
        "team": spec.team,
        "profile": spec.profile,
        "image": spec.image,
        "state": record.state,
        "reason": record.reason,
        "created": rfc3339(record.created_at),
        "started": _time(record.started_at),
        "ended": _time(record.ended_at),
        "command": list(spec.command),
        "code": spec.code,
        "timeout_seconds": spec.timeout_seconds,
        "gang_seconds": spec.gang_seconds,
        "retries": spec.retries,
        "replicas": [replica.as_json() for replica in record.replicas or first_replicas(spec)],
        "failure": record.failure.as_json() if record.failure else None,
        "gpu_seconds": bill.gpu_seconds,
        "cost": bill.cost,
        "currency": currency,
        "logs": record.place("logs"),
        "tensorboard": record.place("tensorboard"),
        "checkpoints": record.place("checkpoints"),
    }


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


def state_counts(states: Mapping[str, int]) -> dict[str, int]:
    """Every state with its number, those without a job, too."""
    return {state: states.get(state, 0) for state in STATES}
