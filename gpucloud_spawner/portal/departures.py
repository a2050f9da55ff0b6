"""Users who were deleted from the hub: their jobs end, and so do keys that they got until then.

The hub itself ends servers and keys. What it does not know, because it was asked of this service,
is seen to here: by asking the hub now and then who is still there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..metering.job_records import JobRecords
from .accounts import Accounts, HubSilent

log = logging.getLogger(__name__)

InThread = Callable[..., Awaitable[Any]]
REASON = "Its owner is no user of the hub any more."


class Departures:
    """Asks for the owners of open jobs, and for who was given a key. `run` for ever, as a task."""

    def __init__(
        self,
        accounts: Accounts,
        records: JobRecords,
        in_thread: InThread,
        *,
        leads: Callable[[], bool],
        wake: Callable[[str], None],
        revoke: Callable[[str], Awaitable[bool]],
        seconds: float,
    ) -> None:
        self._accounts = accounts
        self._records = records
        self._in_thread = in_thread
        self._leads = leads
        self._wake = wake
        self._revoke = revoke
        self._seconds = seconds
        # Who was given a key, maybe after the hub had ended all others, and for how many looks at
        # which he is still a user that is to be borne in mind.
        self._given: dict[str, int] = {}
        self._suspects: set[str] = set()

    def note_key(self, user: str) -> None:
        """``user`` is given a key."""
        self._given[user] = 2

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        said = ""
        while True:
            try:
                await self._look()
                said = ""
            except HubSilent as error:
                if said != (said := str(error)):
                    log.warning("Which users were deleted is not known: %s", said)
            except Exception:  # the border of an endless loop: the database may be away
                log.exception("Looking for deleted users failed; trying again")
            await asyncio.sleep(self._seconds)

    async def _look(self) -> None:
        owners: set[str] = set()
        if self._leads():
            owners = await self._in_thread(self._records.open_owners)
        asked = owners | self._given.keys()
        gone = await self._accounts.gone(asked) if asked else set()
        for user in asked - gone:
            self._given[user] = self._given.get(user, 0) - 1
        # a running training is worth a second question
        sure, self._suspects = gone & self._suspects, gone
        for user in sure & owners:
            await self._stop_jobs(user)
        for user in sure:  # again at the next look, where it cannot be done now
            self._given[user] = 0 if await self._revoke(user) else 2
        self._given = {user: looks for user, looks in self._given.items() if looks > 0}

    async def _stop_jobs(self, user: str) -> None:
        for job in await self._in_thread(self._records.request_stop_of, user, REASON):
            log.warning("Job %s is stopped: %s is no user any more", job, user)
            self._wake(job)
