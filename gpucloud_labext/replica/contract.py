"""What a replica is told by its environment, and what it tells the script and the controller."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Exit codes of the runner beside the script's own.
NO_CODE, NO_PACKAGES, NO_GANG, STOPPED, NO_STORE = 80, 81, 82, 83, 84
SIGNALLED = 128  # + number: the script was ended by a signal, as a shell tells it

TRAINING = ("chief", "worker")
DEFAULT_GANG_SECONDS = 600.0
DEFAULT_GRACE_SECONDS = 20.0
# Of Kubernetes: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
TERMINATION_LOG, TERMINATION_BYTES = "/dev/termination-log", 4096


class ContractError(Exception):
    """The environment is not that of a replica; the text names the variable."""


class Failure(Exception):
    """This replica ends with ``code``; the text is told to the user."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Replica:
    """This replica's place in its job."""

    job: str
    name: str
    role: str
    index: int
    cluster: Mapping[str, list[str]]
    rendezvous: str
    command: tuple[str, ...]
    code: str
    prefix: str  # of the job in the bucket, ends with "/"
    gang_seconds: float = DEFAULT_GANG_SECONDS
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    work: Path = field(default_factory=Path.cwd)
    cache: Path = field(default_factory=lambda: Path.home() / ".cache" / "gpucloud")
    termination_log: Path = Path(TERMINATION_LOG)

    @property
    def label(self) -> str:
        """As people and the API call it: ``worker-0``."""
        return f"{self.role}-{self.index}"

    @property
    def lead(self) -> str:
        """The replica that the others wait for."""
        return "chief-0" if self.cluster.get("chief") else "worker-0"

    @property
    def is_lead(self) -> bool:
        return self.label == self.lead

    @property
    def members(self) -> tuple[str, ...]:
        """All that must be there before anybody trains; evaluators only look on."""
        return tuple(
            f"{role}-{index}"
            for role, addresses in self.cluster.items()
            for index in range(len(addresses))
        )

    @property
    def is_member(self) -> bool:
        return self.label in self.members

    @property
    def has_servers(self) -> bool:
        """Parameter servers: then the chief coordinates, and its end is everybody's."""
        return bool(self.cluster.get("ps"))

    @property
    def serves(self) -> bool:
        """Whether this replica's script is a server that never ends by itself."""
        return self.role == "ps" or (self.role == "worker" and self.has_servers)

    @property
    def address(self) -> str:
        """``host:port`` of this member's own server; empty for an evaluator."""
        addresses = self.cluster.get(self.role, [])
        return addresses[self.index] if self.index < len(addresses) else ""


def read(environment: Mapping[str, str] = os.environ) -> Replica:
    """Raises ContractError."""

    def need(name: str) -> str:
        value = environment.get(name)
        if not value:
            raise ContractError(f"{name} is not set: this is no replica of a gpucloud job")
        return value

    role, index = need("GPUCLOUD_ROLE"), int(environment.get("JOB_COMPLETION_INDEX") or 0)
    cluster = _json("GPUCLOUD_CLUSTER", need("GPUCLOUD_CLUSTER"), dict)
    command = _json("GPUCLOUD_COMMAND", need("GPUCLOUD_COMMAND"), list)
    if not command:
        raise ContractError("GPUCLOUD_COMMAND is empty")
    home = Path(environment.get("HOME") or Path.home())
    if not os.access(home, os.W_OK):  # a container that runs as some other user
        home = Path(tempfile.gettempdir())
    prefix = need("GPUCLOUD_JOB_PREFIX")
    gang = environment.get("GPUCLOUD_GANG_SECONDS")
    grace = environment.get("GPUCLOUD_GRACE_SECONDS")
    return Replica(
        job=need("GPUCLOUD_JOB_ID"),
        name=environment.get("GPUCLOUD_JOB_NAME") or need("GPUCLOUD_JOB_ID"),
        role=role,
        index=index,
        cluster={role: [str(a) for a in addresses] for role, addresses in cluster.items()},
        rendezvous=environment.get("GPUCLOUD_RENDEZVOUS", ""),
        command=tuple(str(word) for word in command),
        code=need("GPUCLOUD_CODE"),
        prefix=prefix if prefix.endswith("/") else prefix + "/",
        gang_seconds=float(gang or DEFAULT_GANG_SECONDS),
        grace_seconds=float(grace or DEFAULT_GRACE_SECONDS),
        work=Path(environment.get("GPUCLOUD_WORK_DIR") or home / "gpucloud-job"),
        cache=Path(environment.get("GPUCLOUD_CACHE_DIR") or home / ".cache" / "gpucloud"),
        termination_log=Path(environment.get("GPUCLOUD_TERMINATION_LOG") or TERMINATION_LOG),
    )


def training_environment(replica: Replica, resolve: Callable[[str], str]) -> dict[str, str]:
    """The variables by which frameworks find each other; ``resolve`` gives the name or address
    under which a host is reached from here.

    TensorFlow gets none where there is nobody else: with a cluster of one it would start servers.
    """
    found = {"LOCAL_RANK": "0"}
    training = [a for role in TRAINING for a in replica.cluster.get(role, [])]
    if training:
        host, _, port = training[0].rpartition(":")
        found |= {"MASTER_ADDR": resolve(host), "MASTER_PORT": port}
        found["WORLD_SIZE"] = str(len(training))
    if replica.role in TRAINING:
        before = len(replica.cluster.get("chief", [])) if replica.role == "worker" else 0
        found["RANK"] = str(before + replica.index)
    if len(replica.members) > 1:
        found["TF_CONFIG"] = json.dumps(
            {
                "cluster": {
                    role: [_resolved(address, resolve) for address in addresses]
                    for role, addresses in replica.cluster.items()
                    if addresses
                },
                "task": {"type": replica.role, "index": replica.index},
            }
        )
    return found


def _resolved(address: str, resolve: Callable[[str], str]) -> str:
    host, _, port = address.rpartition(":")
    return f"{resolve(host)}:{port}"


def _json(name: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise ContractError(f"{name} is not a JSON {kind.__name__}")
    return value


def last_words(path: Path, reason: str, message: str, **more: str) -> None:
    """For Kubernetes' termination message, cut to what it keeps. Never raises: the exit code says
    the most important already."""
    value = {"reason": reason, "message": message, **more}
    while len(data := json.dumps(value, ensure_ascii=False).encode()) > TERMINATION_BYTES:
        # from its beginning: the end of a trace says what happened
        value["message"] = value["message"][len(data) - TERMINATION_BYTES + 1 :]
        if not value["message"]:
            break
    try:
        path.write_bytes(data)
    except OSError:
        return
