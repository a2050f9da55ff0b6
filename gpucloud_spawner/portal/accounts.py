"""Which users the hub still knows: what runs for one who was deleted must end."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

import aiohttp

from .settings import HubAccess

READS_NAMES = "read:users:name"
TIMEOUT_SECONDS = 10


class HubSilent(Exception):
    """The hub does not tell; the text says why."""


class Accounts:
    """Asks the hub over its REST API, with the service's own token."""

    def __init__(self, hub: HubAccess) -> None:
        self._url = hub.api_url
        self._headers = {"Authorization": f"token {hub.api_token}"}

    async def gone(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that are no users (any more). Raises HubSilent.

        The hub answers 404 for a user whom the asking may not see, too: without the right to read
        all names, nobody is gone.
        """
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session:
                async with session.get(f"{self._url}/user") as answer:
                    answer.raise_for_status()
                    own = await answer.json()
                if READS_NAMES not in own["scopes"]:
                    raise HubSilent(f"the service's role in the hub lacks the scope {READS_NAMES}")
                return {name for name in names if await self._is_gone(session, name)}
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
            raise HubSilent(f"{type(error).__name__}: {error}") from error

    async def _is_gone(self, session: aiohttp.ClientSession, name: str) -> bool:
        async with session.get(f"{self._url}/users/{quote(name, safe='')}") as answer:
            if answer.status != 404:
                answer.raise_for_status()
            return answer.status == 404
