"""A job as a Python value: how it stands, waiting for it, its logs and its end."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..client import Client, service
from ..errors import LabError
from .logs import Line, read

OVER = ("succeeded", "failed", "stopped")
# The service may be away for as long as it takes to restart the hub.
_AWAY_SECONDS = 600.0
_S3 = re.compile(r"s3://([^/]+)/(.*)")


class JobFailed(LabError):
    """A job ended otherwise than with success; ``job`` is that job."""

    def __init__(self, job: Job) -> None:
        super().__init__(409, f"job_{job.state}", job.explain(), job=job.id)
        self.job = job


class Job:
    """A job on gpucloud. What it says is as of the last `refresh`; `state` asks anew."""

    def __init__(self, model: dict[str, Any], client: Client) -> None:
        self.model = model
        self._client = client
        self.shown = False  # on the page already: not once more as the cell's value

    # --- how it stands ---

    @property
    def id(self) -> str:
        return str(self.model["id"])

    @property
    def name(self) -> str:
        return str(self.model["name"])

    @property
    def is_over(self) -> bool:
        return self.model["state"] in OVER

    @property
    def state(self) -> str:
        """queued, starting, running, succeeded, failed or stopped; asks the service."""
        return str((self.model if self.is_over else self.refresh().model)["state"])

    @property
    def reason(self) -> str:
        """Why it waits or how it ended, in words."""
        return str(self.model.get("reason") or "")

    @property
    def replicas(self) -> list[dict[str, Any]]:
        return list(self.model.get("replicas") or [])

    @property
    def elapsed(self) -> float:
        """Seconds since it was asked for, up to its end."""
        end = _time(self.model.get("ended")) or datetime.now(UTC)
        created = _time(self.model.get("created")) or end
        return max(0.0, (end - created).total_seconds())

    @property
    def cost(self) -> str:
        return f"{self.model.get('cost', '0')} {self.model.get('currency', '')}".strip()

    def refresh(self) -> Job:
        """Ask the service. Raises LabError."""
        self.model = self._client.request("GET", f"api/jobs/{self.id}")
        return self

    def explain(self) -> str:
        """How it ended, in words: what failed first, its exit code and last lines."""
        parts = [f"The job {self.name} ({self.id}) {_WORDS[self.model['state']]}"]
        failure = self.model.get("failure")
        if failure:
            code = failure.get("exit_code")
            parts[0] += f": {failure['replica']} failed first"
            parts[0] += f", with exit code {code}." if code is not None else "."
        if self.reason:
            parts.append(self.reason)
        if failure:
            parts += [f"  | {line}" for line in failure.get("lines") or []]
            if failure.get("hint"):
                parts.append(f"Hint: {failure['hint']}")
        return "\n".join(parts)

    # --- waiting and ending ---

    def wait(self, timeout: float | None = None, every: float = 1.0) -> Job:
        """Until it is over, however it ends. Raises TimeoutError, LabError.

        A service that does not answer for a while is waited for: the job does not need it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        away_since: float | None = None
        while not self.is_over:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self.name} is {self.model['state']} after {timeout} s")
            try:
                self.refresh()
                away_since = None
            except LabError as error:
                if error.status < 500:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _AWAY_SECONDS:
                    raise
            if not self.is_over:
                time.sleep(every)
        return self

    def result(self, timeout: float | None = None) -> Job:
        """As `wait`, and raises JobFailed, with the reason, unless it succeeded."""
        self.wait(timeout)
        if self.model["state"] != "succeeded":
            raise JobFailed(self)
        return self

    def stop(self) -> Job:
        """End it; its logs, checkpoints and cost stay. Raises LabError."""
        if not self.is_over:
            answer = self._client.request("DELETE", f"api/jobs/{self.id}")
            self.model = answer if isinstance(answer, dict) and "id" in answer else self.model
            self.refresh()
        return self

    # --- what it leaves ---

    def logs(self, replica: str | None = None, follow: bool = False) -> Iterator[Line]:
        """Its log, line by line; with ``follow`` until it is over."""
        return read(self, self._client, replica, follow)

    def place(self, what: str) -> tuple[str, str]:
        """Bucket and key prefix of its ``logs``, ``tensorboard`` or ``checkpoints``."""
        match = _S3.fullmatch(str(self.model.get(what) or ""))
        if match is None:
            raise LabError(404, "no_bucket", f"The job {self.name} has no {what} in a bucket.")
        return match[1], match[2]

    def _ipython_display_(self) -> None:
        if not self.shown:
            raise NotImplementedError  # IPython's word for: as usual
        self.shown = False

    def __repr__(self) -> str:
        from .tables import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from .tables import as_html

        return as_html(self)


_WORDS = {
    "queued": "is queued",
    "starting": "is starting",
    "running": "is running",
    "succeeded": "succeeded",
    "failed": "failed",
    "stopped": "was stopped",
}


def jobs(client: Client | None = None, limit: int = 20) -> list[Job]:
    """The newest jobs of one's own."""
    client = client or service()
    found = client.request("GET", "api/jobs", params={"page_size": limit})
    return [Job(model, client) for model in found["jobs"]]


def find(name: str, client: Client | None = None) -> Job:
    """The job of this id, or the newest one of this name. Raises LabError."""
    client = client or service()
    if re.fullmatch(r"[a-z][a-z0-9-]*", name, re.ASCII):
        try:
            return Job(client.request("GET", f"api/jobs/{name}"), client)
        except LabError as error:
            if error.status != 404:
                raise
    known = jobs(client, limit=100)
    for job in known:
        if job.name == name:
            return job
    near = ", ".join(dict.fromkeys(job.name for job in known[:8])) or "none yet"
    raise LabError(404, "no_such_job", f"You have no job {name[:60]!r}. Your last jobs: {near}.")


def logdir(name: str, client: Client | None = None) -> str:
    """The TensorBoard log directory of ``job:NAME``; anything else is returned as it is.

    Raises LabError where there is no such job.
    """
    if not name.startswith("job:"):
        return name
    bucket, prefix = find(name.removeprefix("job:"), client).place("tensorboard")
    return f"s3://{bucket}/{prefix}"


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
