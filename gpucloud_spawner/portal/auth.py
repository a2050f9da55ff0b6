"""Who asks, and what they may see: the hub knows people and groups, this module the rules.

Rights come from the scopes of the token that a request carries, never from a name in a list: a
server's token is its owner's, but not an administrator's even where its owner is one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp
from jupyterhub.services.auth import HubOAuth

from .errors import PortalError
from .settings import SERVICE, HubAccess

log = logging.getLogger(__name__)

# Of our own role or, without filters, of the hub's administrators.
ADMIN_SCOPES = frozenset({"custom:gpucloud:admin", "admin:users"})
ACCESS_SCOPES = frozenset({"access:services", f"access:services!service={SERVICE}"})
METRICS_SCOPES = frozenset({"read:metrics"})
# A property of a hub group: the names of those who may see all of its use.
TEAM_ADMINS = "gpucloud_admins"
GROUPS_MAX_AGE_SECONDS = 5.0
HUB_TIMEOUT_SECONDS = 10


class Need(Enum):
    """What a request must bring; each is the set of scopes of which one is enough."""

    NOTHING = frozenset[str]()
    ACCESS = ACCESS_SCOPES
    ADMIN = ADMIN_SCOPES
    METRICS = METRICS_SCOPES

    def is_met(self, scopes: Collection[str]) -> bool:
        # whole scopes only: "admin:users!group=x" is no "admin:users"
        if self is Need.NOTHING:
            return True
        if self is Need.ADMIN and not ACCESS_SCOPES.intersection(scopes):
            return False
        return bool(self.value.intersection(scopes))


@dataclass(frozen=True)
class Caller:
    """Who asks. ``user`` is "" for a service: it is nobody's namesake."""

    name: str
    user: str
    groups: frozenset[str]
    is_admin: bool

    @classmethod
    def from_model(cls, model: Mapping[str, Any]) -> Caller:
        """From the hub's model of whose token it is."""
        person = model.get("kind") == "user"
        return cls(
            name=str(model["name"]),
            user=str(model["name"]) if person else "",
            groups=frozenset(model.get("groups") or ()) if person else frozenset(),
            is_admin=Need.ADMIN.is_met(model.get("scopes") or ()),
        )

    @property
    def actor(self) -> str:
        """How what they do is signed."""
        return self.user or f"service {self.name}"


def visible_filters(
    filters: Mapping[str, tuple[str, ...]], caller: Caller, teams: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The filters of a question about usage, narrowed to what ``caller`` may see.

    ``teams``: of which the caller is an administrator. Without a user or a team, everybody but
    administrators asks about himself. Raises PortalError (403) for a question about others.
    """
    wanted = dict(filters)
    if caller.is_admin:
        return wanted
    users, asked_teams = wanted.get("user"), wanted.get("team")
    if users is None and asked_teams is None and caller.user:
        wanted["user"] = (caller.user,)
        return wanted
    if caller.user and users and set(users) == {caller.user}:
        return wanted
    if asked_teams and set(asked_teams) <= set(teams):
        return wanted
    if teams:
        mine = f"your own usage (user={caller.user}) and that of: team={', team='.join(teams)}"
    else:
        mine = "your own usage" + (f" (user={caller.user})" if caller.user else "")
    raise PortalError(403, "forbidden", f"You may see {mine}.", teams=sorted(teams))


def make_hub_auth(hub: HubAccess) -> HubOAuth:
    """JupyterHub's own authenticator of services."""
    return HubOAuth(
        api_url=hub.api_url,
        api_token=hub.api_token,
        base_url=hub.prefix,
        hub_prefix=hub.hub_prefix,
        hub_host=hub.public_host,
        oauth_client_id=hub.client_id,
        access_scopes=set(ACCESS_SCOPES),
        # seconds until a right that was taken away, or a new one, is noticed
        cache_max_age=20,
    )


class Teams:
    """The hub's groups, read over its REST API and kept for a moment."""

    def __init__(self, hub: HubAccess) -> None:
        self._url = f"{hub.api_url}/groups"
        self._headers = {
            "Authorization": f"token {hub.api_token}",
            "Accept": "application/jupyterhub-pagination+json",
        }
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._admins: dict[str, frozenset[str]] = {}

    async def administered_by(self, user: str) -> tuple[str, ...]:
        """The teams that ``user`` is an administrator of. Raises PortalError without the hub."""
        if not user:
            return ()
        async with self._lock:
            if time.monotonic() - self._read_at > GROUPS_MAX_AGE_SECONDS:
                self._admins = await self._read()
                self._read_at = time.monotonic()
        return tuple(sorted(team for team, admins in self._admins.items() if user in admins))

    async def _read(self) -> dict[str, frozenset[str]]:
        timeout = aiohttp.ClientTimeout(total=HUB_TIMEOUT_SECONDS)
        found: dict[str, frozenset[str]] = {}
        offset: int | None = 0
        try:
            async with aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session:
                while offset is not None:
                    async with session.get(self._url, params={"offset": offset}) as answer:
                        answer.raise_for_status()
                        page = await answer.json()
                    for group in page["items"]:
                        found[group["name"]] = _admins(group)
                    following = page["_pagination"]["next"]
                    offset = following["offset"] if following else None
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
            log.warning("The hub does not tell its groups: %s", error)
            raise PortalError(
                503, "hub_unavailable", "The hub does not answer at the moment. Try again."
            ) from error
        return found


def _admins(group: Mapping[str, Any]) -> frozenset[str]:
    names = (group.get("properties") or {}).get(TEAM_ADMINS, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        log.error("Group %s: %s is not a list of names: nobody", group["name"], TEAM_ADMINS)
        return frozenset()
    return frozenset(names)
