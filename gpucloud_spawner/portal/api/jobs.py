"""Jobs: launch, list, look, stop, logs. Everything is checked here before anything is stored.

A user has his own jobs, a team's administrators see those that are billed to it, administrators see
all. A job that one may not see is answered like one that there is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from tornado.iostream import StreamClosedError

from ...kube.watch import cancel_and_wait
from ...metering.budgets import check
from ...metering.job_records import KeyReused, NewJob, TooManyJobs
from ...model.gpus import Request, take_inventory, why_never_together
from ...model.job_record import JobRecord, job_json
from ...model.job_request import fingerprint, idempotency_key, parse_job
from ...model.jobs import JobError, JobSpec
from ...model.profiles import Profile
from ..errors import PortalError
from ..handler import Handler
from .s3 import MANAGES_USERS, in_words

log = logging.getLogger(__name__)

S3_SECONDS = 15.0
MAX_TAIL = 100_000


class JobHandler(Handler):
    """What all paths of jobs share."""

    @property
    def rules_all(self) -> bool:
        """Whether the caller may read and stop what is others': the right to see use is not it."""
        scopes = (self.current_user or {}).get("scopes") or ()
        return self.caller.is_admin and MANAGES_USERS in scopes

    def is_mine(self, record: JobRecord) -> bool:
        return self.caller.user != "" and record.user == self.caller.user

    async def find(self, job: str) -> JobRecord:
        """A job that the caller may see. Raises PortalError (404)."""
        record = await self.in_thread(self.portal.job_records.get, job)
        if record is not None:
            if self.caller.is_admin or self.is_mine(record):
                return record
            if record.spec.team and record.spec.team in await self.my_teams():
                return record
        raise PortalError(404, "no_such_job", f"You have no job {job[:80]!r}.")

    async def find_own(self, job: str) -> JobRecord:
        """A job that the caller may stop, and whose logs are his. Raises PortalError."""
        record = await self.find(job)
        if not self.rules_all and not self.is_mine(record):
            raise PortalError(403, "forbidden", "Only its owner and administrators may do this.")
        return record

    async def described(self, records: Collection[JobRecord]) -> list[dict[str, Any]]:
        settings = self.portal.settings
        bills = await self.in_thread(self.portal.job_records.bills, records, digits=settings.digits)
        return [job_json(self._told(r), bills[r.id], settings.currency) for r in records]

    def _told(self, record: JobRecord) -> JobRecord:
        """Without the last lines of a log that the caller may not read."""
        if record.failure is None or self.rules_all or self.is_mine(record):
            return record
        return replace(record, failure=replace(record.failure, lines=()))


class Jobs(JobHandler):
    """`api/jobs`."""

    async def get(self) -> None:
        user, teams = await self._whose()
        records, cursor = await self.in_thread(
            self.portal.job_records.page,
            user=user,
            teams=teams,
            states=self.parameters.get("state", ()),
            size=self.parameters.get("page_size", 100),
            cursor=self.parameters.get("cursor", ""),
        )
        self.write_json({"jobs": await self.described(records), "next": cursor})

    async def _whose(self) -> tuple[str | None, tuple[str, ...] | None]:
        """User and teams to look for. Raises PortalError (403) for a question about others."""
        user, team = self.parameters.get("user"), self.parameters.get("team")
        teams = None if team is None else (team,)
        if self.caller.is_admin:
            return user, teams
        if user is None and team is None:
            user = self.caller.user
        if user and user == self.caller.user:
            return user, teams
        mine = await self.my_teams()
        if mine and (team is None or team in mine):
            return user, teams or mine
        raise PortalError(
            403, "forbidden", "You may see your own jobs and those of your teams.", teams=mine
        )

    async def post(self) -> None:
        user = self.caller.user
        if not user:
            raise PortalError(403, "forbidden", "A job belongs to a user; a service is none.")
        records = self.portal.job_records
        try:
            key, mark = idempotency_key(self.body), fingerprint(self.body)
            known = await self.in_thread(records.find_key, user, key, mark)
            if known is not None:
                self.write_json((await self.described([known]))[0])
                return
        except KeyReused as error:
            raise PortalError(409, error.code, error.message, **error.details) from error
        except JobError as error:
            raise PortalError(400, error.code, error.message, **error.details) from error
        spec, profile, namespace = self._parsed()
        await self._check_budget(spec)
        await self._check_fit(spec, profile)
        bucket, secret = await self._keys()
        new = NewJob(spec, user, key, mark, namespace, bucket, secret)
        most = self.portal.settings.jobs.limits.max_open
        try:
            record, fresh = await self.in_thread(records.create, new, most)
        except KeyReused as error:
            raise PortalError(409, error.code, error.message, **error.details) from error
        except TooManyJobs as error:
            raise PortalError(403, error.code, error.message, **error.details) from error
        self.portal.wake_job(record.id)
        self.write_json((await self.described([record]))[0], 201 if fresh else 200)

    def _parsed(self) -> tuple[JobSpec, Profile, str]:
        """The job that was asked for, and the namespace of its pods. Raises PortalError."""
        settings = self.portal.settings.jobs
        try:
            spec, profile = parse_job(
                self.body, list(settings.profiles), self.caller.groups, settings.limits
            )
        except JobError as error:
            raise PortalError(400, error.code, error.message, **error.details) from error
        namespace = self.portal.settings.pod_namespace
        if namespace is None:
            raise PortalError(
                404, "jobs_off", "Jobs are not offered where every user has a namespace."
            )
        return spec, profile, namespace

    async def _check_budget(self, spec: JobSpec) -> None:
        decision = await self.in_thread(
            check,
            self.portal.engine,
            self.portal.settings.budgets,
            user=self.caller.user,
            team=spec.team,
            gpus=spec.total_gpus,
        )
        if not decision.allowed:
            budgets = [status.as_json() for status in decision.budgets]
            raise PortalError(403, "budget", decision.message, budgets=budgets)

    async def _check_fit(self, spec: JobSpec, profile: Profile) -> None:
        """Refuse what this cluster could never hold at the same time."""
        if self.portal.settings.jobs.cluster_scales_up or not spec.total_gpus:
            return
        snapshot = await self.portal.look_at_cluster()
        if snapshot is None:
            return  # nobody can tell: it waits, and says why
        inventory = take_inventory(profile.gpu_resource, *snapshot)
        wanted: dict[int, int] = {}
        for role in spec.roles:
            gpus = spec.gpus_of(role)
            wanted[gpus] = wanted.get(gpus, 0) + spec.replicas[role]
        for gpus, number in wanted.items():
            if gpus:
                request = Request(profile.gpu_resource, gpus, profile.node_selector)
                words = why_never_together(inventory, request, number)
                if words:
                    raise PortalError(400, "impossible", words)

    async def _keys(self) -> tuple[str, str]:
        """The caller's bucket, and the Secret that opens it. Raises PortalError."""
        keys = self.portal.s3_keys
        with in_words():
            async with asyncio.timeout(S3_SECONDS):
                self.portal.departures.note_key(self.caller.user)
                secret = await keys.ensure(self.caller.user, self.caller.groups)
                place = await keys.place(self.caller.user)
        return place.bucket if place else "", secret


class Job(JobHandler):
    """`api/jobs/{id}`."""

    async def get(self, id: str) -> None:
        self.write_json((await self.described([await self.find(id)]))[0])

    async def delete(self, id: str) -> None:
        record = await self.find_own(id)
        if not record.is_over:
            who = "you" if self.is_mine(record) else self.caller.actor
            await self.in_thread(
                self.portal.job_records.request_stop, record.id, f"Stopped by {who}."
            )
            self.portal.wake_job(record.id)
            record = await self.find(id)
        self.write_json((await self.described([record]))[0])


class Logs(JobHandler):
    """`api/jobs/{id}/logs`: as text, while the replicas write."""

    _reading: asyncio.Task[None] | None = None

    async def get(self, id: str) -> None:
        record = await self.find_own(id)
        replica = self.parameters.get("replica", "")
        members = [item.name for item in record.replicas]
        if replica and replica not in members:
            raise PortalError(
                400,
                "no_such_replica",
                f"There is no {replica[:80]!r} in this job.",
                allowed=members,
            )
        tail = self.parameters.get("tail")
        if tail is not None and not 0 <= tail <= MAX_TAIL:
            raise PortalError(400, "bad_value", f"tail must be 0 to {MAX_TAIL}.", maximum=MAX_TAIL)
        follow = self.parameters.get("follow", "0") == "1"
        logs = self.portal.job_logs
        if await logs.are_archived(record, replica):
            raise PortalError(
                410,
                "logs_archived",
                "The replicas of this job are gone; their logs are in your bucket.",
                prefix=record.place("logs"),
            )
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self._reading = asyncio.create_task(self._pump(record, replica, follow, tail))
        try:
            await asyncio.wait([self._reading])
        finally:
            if not self._reading.done():
                await cancel_and_wait(self._reading)
        if not self._reading.cancelled():
            self._reading.result()

    async def _pump(self, record: JobRecord, replica: str, follow: bool, tail: int | None) -> None:
        await self.flush()  # the headers: whoever follows knows that it has begun
        try:
            async for chunk in self.portal.job_logs.stream(record, replica, follow, tail):
                self.write(chunk)
                await self.flush()
        except StreamClosedError:
            return  # the client has gone
        except Exception as error:  # noqa: BLE001 - the border of the request
            log.warning("The log of %s broke off: %r", record.id, error)
            # too late for an error: a log that ends early must not look complete
            self.detach().close()

    def on_connection_close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
