"""The jobs in the database: stored once, changed by whoever knows, found again by any service.

Blocking functions for any thread. What a job means is in `model.jobs`, what is done about it in the
room `jobs`, which knows this module only by what it can do.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..model.job_record import (
    OVER,
    STATES,
    Bill,
    JobRecord,
    failure_from_json,
    failure_to_json,
    first_replicas,
    replicas_from_json,
    replicas_to_json,
    state_counts,
)
from ..model.jobs import FIRST_PORT, LAST_PORT, JobSpec, new_job_id, ports_needed
from ..model.pricing import to_money
from ..model.usage import Window
from .db import NEW_JOB, one_at_a_time, reading, writing
from .errors import LedgerError, not_allowed
from .lease import database_time
from .query import Query, check_page_size
from .statements import usage
from .tables import IDENTITY, JOB

_TRIES = 5
# of what happened to a job; None until it does
_TIMES = ("launched_at", "started_at", "incomplete_at", "ended_at", "closed_at")


class KeyReused(LedgerError):
    """An idempotency key came again with another request."""


class TooManyJobs(LedgerError):
    """The user has as many jobs that are not over as he may have."""


@dataclass(frozen=True)
class NewJob:
    """What is known of a job before it is stored."""

    spec: JobSpec
    user: str
    idempotency_key: str
    fingerprint: str
    namespace: str
    bucket: str
    secret: str


class JobRecords:
    """The table of jobs of one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def identity(self) -> str:
        """What tells objects of this database from those of others."""
        while True:
            with self._engine.connect() as connection:
                name = connection.scalar(select(IDENTITY.c.name).where(IDENTITY.c.id == 1))
            if name is not None:
                return str(name)
            with suppress(IntegrityError), writing(self._engine).begin() as connection:
                connection.execute(insert(IDENTITY).values(id=1, name=secrets.token_hex(8)))

    def find_key(self, user: str, key: str, fingerprint: str) -> JobRecord | None:
        """The job that was made with a key. Raises KeyReused where it was another request's."""
        query = select(JOB).where(JOB.c.owner == user, JOB.c.idempotency_key == key)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise KeyReused(
                "key_reused",
                "This idempotency_key belongs to another request of yours. Use a new one.",
                job=row["job"],
            )
        return _record(row)

    def create(self, new: NewJob, max_open: int = 0) -> tuple[JobRecord, bool]:
        """Store a job; with a key that was used, what that made, and False.

        ``max_open``: jobs not yet over that its user may have, this one included; 0: no limit.
        Raises KeyReused, TooManyJobs.
        """
        for attempt in range(_TRIES):
            known = self.find_key(new.user, new.idempotency_key, new.fingerprint)
            if known is not None:
                return known, False
            try:
                with writing(self._engine).begin() as connection:
                    one_at_a_time(connection, NEW_JOB)  # the count, and the next free ports
                    if max_open:
                        _check_open(connection, new.user, max_open)
                    return self._insert(connection, new), True
            except IntegrityError:  # the same key at the same time, or an id that there is
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("not reached")

    def _insert(self, connection: Connection, new: NewJob) -> JobRecord:
        ports = ports_needed(new.spec)
        last = connection.execute(
            select(JOB.c.port, JOB.c.ports).order_by(JOB.c.id.desc()).limit(1)
        ).first()
        # One after the other: replicas of jobs that run at the same time may share a network. The
        # first one anywhere: jobs of another gpucloud may be in the same network, too.
        anywhere = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
        port = anywhere if last is None else last.port + last.ports
        if port + ports > LAST_PORT:
            port = FIRST_PORT
        values: dict[str, Any] = {
            "job": new_job_id(new.spec.name),
            "owner": new.user,
            "team": new.spec.team,
            "idempotency_key": new.idempotency_key,
            "fingerprint": new.fingerprint,
            "spec": new.spec.to_json(),
            "namespace": new.namespace,
            "bucket": new.bucket,
            "secret": new.secret,
            "port": port,
            "ports": ports,
            "state": "queued",
            "reason": "",
            "stop_requested": False,
            "created_at": database_time(connection),
            "replicas": replicas_to_json(first_replicas(new.spec)),
            "failure": "",
            "version": 1,
            **dict.fromkeys(_TIMES),
        }
        connection.execute(insert(JOB).values(**values))
        return _record(values)

    def get(self, job: str) -> JobRecord | None:
        """One job; None where there is none of that id."""
        with self._engine.connect() as connection:
            row = connection.execute(select(JOB).where(JOB.c.job == job)).mappings().first()
        return None if row is None else _record(row)

    def open_versions(self) -> dict[str, int]:
        """Every job that is not closed, with its version."""
        query = select(JOB.c.job, JOB.c.version).where(JOB.c.closed_at.is_(None))
        with self._engine.connect() as connection:
            return {row.job: row.version for row in connection.execute(query)}

    def now(self) -> int:
        """The clock that all services on this database share."""
        with self._engine.connect() as connection:
            return database_time(connection)

    def update(self, record: JobRecord, **changes: Any) -> JobRecord | None:
        """``record`` with changes, stored; None where it was changed meanwhile: read it again.

        A job that is over stays what it is; only `closed_at` may be set.
        """
        values = dict(changes)
        if "replicas" in values:
            values["replicas"] = replicas_to_json(values["replicas"])
        if "failure" in values:
            values["failure"] = failure_to_json(values["failure"])
        where = [JOB.c.job == record.id, JOB.c.version == record.version]
        if set(changes) - {"closed_at"}:
            where.append(JOB.c.state.not_in(OVER))
        with writing(self._engine).begin() as connection:
            statement = update(JOB).where(*where).values(**values, version=JOB.c.version + 1)
            changed = connection.execute(statement).rowcount == 1
            row = connection.execute(select(JOB).where(JOB.c.job == record.id)).mappings().first()
        return _record(row) if changed and row is not None else None

    def request_stop(self, job: str, reason: str) -> None:
        """Remember that a job shall end; nothing where it is over."""
        with writing(self._engine).begin() as connection:
            connection.execute(
                update(JOB)
                .where(JOB.c.job == job, JOB.c.state.not_in(OVER), JOB.c.stop_requested.is_(False))
                .values(stop_requested=True, reason=reason, version=JOB.c.version + 1)
            )

    def open_owners(self) -> set[str]:
        """The users who have jobs that are not over."""
        query = select(JOB.c.owner).where(JOB.c.state.not_in(OVER)).distinct()
        with self._engine.connect() as connection:
            return set(connection.scalars(query))

    def request_stop_of(self, user: str, reason: str) -> list[str]:
        """`request_stop` for all that a user has; the ids of those that were not yet to end."""
        query = select(JOB.c.job).where(
            JOB.c.owner == user, JOB.c.state.not_in(OVER), JOB.c.stop_requested.is_(False)
        )
        with self._engine.connect() as connection:
            jobs = list(connection.scalars(query))
        for job in jobs:
            self.request_stop(job, reason)
        return jobs

    def counts(self) -> dict[str, int]:
        """How many jobs there are in every state."""
        query = select(JOB.c.state, func.count()).group_by(JOB.c.state)
        with self._engine.connect() as connection:
            return state_counts({row[0]: row[1] for row in connection.execute(query)})

    def page(
        self,
        *,
        user: str | None = None,
        teams: Collection[str] | None = None,
        states: Collection[str] = (),
        size: int = 100,
        cursor: str = "",
    ) -> tuple[list[JobRecord], str]:
        """Some jobs, the newest first, and the cursor of the next page ("" at the end).

        Those of ``user``, billed to one of ``teams``; None: any. Raises LedgerError.
        """
        check_page_size(size)
        where: list[Any] = []
        if user is not None:
            where.append(JOB.c.owner == user)
        if teams is not None:
            where.append(JOB.c.team.in_(sorted(teams)))
        for state in states:
            if state not in STATES:
                raise not_allowed("unknown_state", "State", state, STATES)
        if states:
            where.append(JOB.c.state.in_(sorted(states)))
        if cursor:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
                raise LedgerError(
                    "bad_cursor", "This is not a cursor of a page before. Begin without one."
                )
            where.append(JOB.c.id < int(cursor))
        query = select(JOB).where(*where).order_by(JOB.c.id.desc()).limit(size + 1)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        following = str(rows[size - 1]["id"]) if len(rows) > size else ""
        return [_record(row) for row in rows[:size]], following

    def bills(self, records: Collection[JobRecord], *, digits: int = 2) -> dict[str, Bill]:
        """What jobs have used, by id, from the ledger."""
        if not records:
            return {}
        with reading(self._engine).connect() as connection:
            now = database_time(connection)
        start = min(record.created_at for record in records)
        window = Window(start, max(now, start) + 3600)
        query = Query(window, ("job",), {"job": tuple(record.id for record in records)})
        rows = usage(self._engine, query, digits=digits).rows
        used = {row.group["job"]: Bill(row.gpu_seconds, str(row.cost)) for row in rows}
        nothing = Bill(0, str(to_money(0, digits)))
        return {record.id: used.get(record.id, nothing) for record in records}


def _check_open(connection: Connection, user: str, most: int) -> None:
    query = select(func.count()).where(JOB.c.owner == user, JOB.c.state.not_in(OVER))
    found = connection.scalar(query) or 0
    if found >= most:
        raise TooManyJobs(
            "too_many_jobs",
            f"You have {found} jobs that are not over, and may have {most}. Stop one, or wait "
            "until one ends.",
            maximum=most,
        )


def _record(row: Mapping[Any, Any]) -> JobRecord:
    same = ("namespace", "bucket", "secret", "port", "created_at", "state", "reason", "version")
    return JobRecord(
        id=row["job"],
        spec=JobSpec.from_json(row["spec"]),
        user=row["owner"],
        stop_requested=bool(row["stop_requested"]),
        replicas=replicas_from_json(row["replicas"]),
        failure=failure_from_json(row["failure"]),
        **{name: row[name] for name in (*same, *_TIMES)},
    )
