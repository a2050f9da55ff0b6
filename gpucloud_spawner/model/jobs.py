"""A distributed job: what it consists of, its names, ports and cluster description.

Pure. How a request for one is checked is in `job_request`, how a job stands in `job_record`, what
Kubernetes is given in `jobs.manifests`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# In the order in which they are launched and numbered. The lead is the first that there is.
ROLES = ("chief", "worker", "ps", "evaluator")
# Those that compute, with GPUs; the others serve them and end with them.
TRAINING = ("chief", "worker")

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
# Below the ports that systems give out by themselves (from 32768), above those that servers are
# usually told to have.
FIRST_PORT, LAST_PORT = 22000, 32000


class JobError(ValueError):
    """A refused job; nothing was stored. The text is for the user and names what is allowed."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True)
class JobSpec:
    """A complete, allowed job: every default filled in."""

    name: str
    command: tuple[str, ...]
    code: str  # SHA-256 of the manifest of the code
    replicas: Mapping[str, int]  # role -> number, all roles
    profile: str
    image: str  # key of the profile's images
    team: str
    gpus: int  # of each chief and worker
    ps_gpus: int
    cpu: str  # cores of each replica; "": as the profile says
    memory: int  # bytes of each replica; 0: as the profile says
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: int = 86400
    gang_seconds: int = 600
    retries: int = 1

    def __post_init__(self) -> None:
        if not any(self.replicas[role] for role in TRAINING):
            raise JobError("bad_replicas", "A job needs a chief or at least one worker.")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that this job has."""
        return tuple(role for role in ROLES if self.replicas[role])

    @property
    def size(self) -> int:
        return sum(self.replicas.values())

    @property
    def is_distributed(self) -> bool:
        return self.size - self.replicas["evaluator"] > 1

    @property
    def total_gpus(self) -> int:
        return sum(self.gpus_of(role) * self.replicas[role] for role in self.roles)

    @property
    def deciding_roles(self) -> tuple[str, ...]:
        """The roles whose success is the job's.

        A chief with parameter servers is the coordinator: its workers are servers that never end by
        themselves (tf.distribute.ParameterServerStrategy). Otherwise every chief and worker ends.
        """
        if self.replicas["chief"] and self.replicas["ps"]:
            return ("chief",)
        return tuple(role for role in TRAINING if self.replicas[role])

    def gpus_of(self, role: str) -> int:
        return self.gpus if role in TRAINING else self.ps_gpus if role == "ps" else 0

    def members(self) -> Iterator[tuple[str, int]]:
        """Role and index of every replica, in the order of their ports."""
        for role in self.roles:
            for index in range(self.replicas[role]):
                yield role, index

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        values = json.loads(text)
        return cls(**{**values, "command": tuple(values["command"])})


def replica_name(role: str, index: int) -> str:
    """As people and the API call it: ``worker-0``."""
    return f"{role}-{index}"


def new_job_id(name: str) -> str:
    """A name for all objects of a new job: a DNS label that begins with a letter."""
    return f"{name}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(8))}"


def ports_needed(spec: JobSpec) -> int:
    """One per replica, and one for the rendezvous."""
    return spec.size + 1


def hostname(job: str, role: str, index: int) -> str:
    """The pod's hostname, as an Indexed Job sets it."""
    return f"{job}-{role}-{index}"


def address(job: str, role: str, index: int, namespace: str) -> str:
    """The DNS name of a replica, through the job's headless Service."""
    return f"{hostname(job, role, index)}.{job}.{namespace}.svc"


def cluster(spec: JobSpec, job: str, namespace: str, port: int) -> dict[str, list[str]]:
    """TensorFlow's cluster description: an evaluator is no member of it.

    A distinct port each, beginning with ``port``: a TensorFlow server binds it on all addresses,
    and replicas may share a network.
    """
    found: dict[str, list[str]] = {}
    for number, (role, index) in enumerate(spec.members()):
        if role != "evaluator":
            where = f"{address(job, role, index, namespace)}:{port + number}"
            found.setdefault(role, []).append(where)
    return found


def rendezvous(spec: JobSpec, job: str, namespace: str, port: int) -> str:
    """Where the lead replica's runner waits for all others."""
    lead = next(spec.members())
    return f"{address(job, *lead, namespace)}:{port + spec.size}"
