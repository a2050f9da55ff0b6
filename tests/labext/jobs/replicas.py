"""Replicas of a job as processes of this machine, on a real S3 server: what Kubernetes would do,
by hand. Their names stand in a hosts file, as on the local cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpucloud_labext.jobs import logfiles
from gpucloud_labext.jobs.capture import capture
from gpucloud_labext.jobs.manifest import Manifest
from gpucloud_labext.jobs.store import Store
from gpucloud_labext.jobs.upload import upload
from tests.labext.contents.servers import BUCKET, wait_for
from tests.labext.contents.servers import Store as Server
from tests.ports import free_ports

REPO = Path(__file__).parents[3]


class Replica:
    """One pod's process; `start` again is a new pod of the same index, with an empty disk."""

    def __init__(self, job: Job, label: str, starts: int = 0) -> None:
        self.job = job
        self.label = label
        self.starts = starts
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> Replica:
        self.starts += 1
        self.home = self.job.folder / f"{self.label}.{self.starts}"
        self.home.mkdir()
        with (self.home / "stdout").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpucloud_labext.runner"],
                env=self.job.environment(self.label, self.home) | environment,
                cwd=REPO,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self

    def wait(self, seconds: float = 60.0) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.label} goes on: {self.output()}") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def output(self) -> str:
        return (self.home / "stdout").read_text()

    def said(self, words: str, seconds: float = 60.0) -> None:
        wait_for(lambda: words in self.output(), f"{words!r} of {self.label}", seconds)

    @property
    def last_words(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.home / "last-words").read_text())
        return value

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class Job:
    """A job of ``roles`` (role -> number) that runs ``command`` in ``files``."""

    def __init__(
        self,
        server: Server,
        folder: Path,
        files: dict[str, str],
        command: list[str],
        roles: dict[str, int] | None = None,
        packages: tuple[str, ...] = (),
        gang_seconds: float = 60,
    ) -> None:
        self.server = server
        self.folder = folder
        self.id = f"job-{uuid.uuid4().hex[:8]}"
        self.command = command
        self.gang_seconds = gang_seconds
        self.roles = roles or {"worker": 1}
        self.store = store_of(server)
        tree = folder / "tree"
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        captured = capture(tree)
        manifest = Manifest(captured.files, packages)
        self.code = upload(self.store, captured, manifest).sha256
        members = [f"{role}-{n}" for role, count in self.roles.items() for n in range(count)]
        first = free_ports(len(members) + 1)
        self.ports = {label: first + number for number, label in enumerate(members)}
        self.rendezvous = first + len(members)
        self.replicas = {label: Replica(self, label) for label in members}
        mounts = folder / "mounts" / "etc"
        mounts.mkdir(parents=True)
        names = " ".join(self.host(label) for label in members)
        (mounts / "hosts").write_text(f"127.0.0.1 localhost {names}\n")

    def __getitem__(self, label: str) -> Replica:
        return self.replicas[label]

    @property
    def prefix(self) -> str:
        return f"jobs/{self.id}/"

    def host(self, label: str) -> str:
        return f"{self.id}-{label}.{self.id}.gpucloud.svc"

    def environment(self, label: str, home: Path) -> dict[str, str]:
        role, _, index = label.rpartition("-")
        cluster: dict[str, list[str]] = {}
        for member, port in self.ports.items():
            if not member.startswith("evaluator"):
                cluster.setdefault(member.rpartition("-")[0], []).append(
                    f"{self.host(member)}:{port}"
                )
        lead = "chief-0" if "chief" in cluster else "worker-0"
        keep = ("PATH", "LANG", "TMPDIR", "PYTHONPATH", "PIP_FIND_LINKS", "PIP_INDEX_URL")
        return {
            **{name: os.environ[name] for name in keep if name in os.environ},
            **self.server.environment(),
            "HOME": str(home),
            "GPUCLOUD_MOUNTS": str(self.folder / "mounts"),
            "GPUCLOUD_JOB_ID": self.id,
            "GPUCLOUD_JOB_NAME": "train",
            "GPUCLOUD_ROLE": role,
            "JOB_COMPLETION_INDEX": index,
            "GPUCLOUD_CLUSTER": json.dumps(cluster),
            "GPUCLOUD_RENDEZVOUS": f"{self.host(lead)}:{self.rendezvous}",
            "GPUCLOUD_GANG_SECONDS": str(self.gang_seconds),
            "GPUCLOUD_GRACE_SECONDS": "2",
            "GPUCLOUD_CODE": self.code,
            "GPUCLOUD_COMMAND": json.dumps(self.command),
            "GPUCLOUD_JOB_PREFIX": self.prefix,
            "GPUCLOUD_TERMINATION_LOG": str(home / "last-words"),
        }

    def start(self, **environment: str) -> Job:
        for replica in self.replicas.values():
            replica.start(**environment)
        return self

    def log(self, label: str) -> str:
        """What the bucket has of a replica's log."""
        found = [entry.key for entry in self.store.entries(logfiles.folder(self.prefix))]
        numbers = logfiles.parts(self.prefix, found).get(label, [])
        keys = [logfiles.part_key(self.prefix, label, number) for number in numbers]
        return b"".join(self.store.get(key) or b"" for key in keys).decode()

    def keys(self, below: str) -> list[str]:
        prefix = self.prefix + below
        return sorted(entry.key.removeprefix(prefix) for entry in self.store.entries(prefix))


def store_of(server: Server) -> Store:
    """The bucket of tests, with explicit keys: this process has none in its environment."""
    store = Store(BUCKET, server.endpoint, "us-east-1")
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    store._client = server.client()
    store._connect = lambda path: store._client  # type: ignore[method-assign,assignment,return-value]
    return store


@contextmanager
def running(job: Job, **environment: str) -> Iterator[Job]:
    try:
        yield job.start(**environment)
    finally:
        for replica in job.replicas.values():
            replica.end()
