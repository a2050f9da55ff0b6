"""The caller's data in S3: where they are, how much there is, and a new key.

What keys are and what a rotation does is in `storage.keys`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException

from ...storage.keys import as_data
from ...storage.s3 import S3Error
from ..errors import PortalError
from ..handler import Handler

STORE_SECONDS = 10.0
NO_KEYS = "There is no key yet. Your first server makes one, and so does a rotation."
# May act on accounts of others; the right to see all usage is not enough for that.
MANAGES_USERS = "admin:users"
_STATUS = {
    "s3_no_key": 404,
    "s3_unsupported": 409,
    "s3_name_taken": 409,
    "s3_refused": 502,
    "s3_unreachable": 503,
}


@contextmanager
def in_words() -> Iterator[None]:
    """The store's and the cluster's errors as PortalErrors; nothing of a request gets out."""
    try:
        yield
    except S3Error as error:
        raise PortalError(_STATUS.get(error.code, 503), error.code, str(error)) from error
    except ApiException as error:
        if error.status == 404:  # the namespace: a lack of anything else is no error here
            raise PortalError(
                409, "no_namespace", "Start a server first: what keeps keys is made with it."
            ) from error
        raise PortalError(
            503,
            "cluster_unavailable",
            f"The cluster refused ({error.status} {error.reason}). Try again, or ask an admin.",
        ) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PortalError(
            503, "cluster_unavailable", "The cluster does not answer at the moment. Try again."
        ) from error


def owner_of(handler: Handler, allowed: bool) -> str:
    """Whose things a request is about: the caller's, or with ``allowed`` those of `user`.

    Raises PortalError.
    """
    given = getattr(handler, "body", None) or handler.parameters
    user = str(given.get("user", handler.caller.user))
    if user == handler.caller.user and user:
        return user
    if not allowed:
        raise PortalError(403, "forbidden", "You may see and change what is your own.")
    if not user:
        raise PortalError(400, "missing", "user is missing: whose it is", parameter="user")
    return user


class Data(Handler):
    """`api/s3`."""

    async def get(self) -> None:
        user = owner_of(self, self.caller.is_admin)
        self.write_json(await describe(self, user))


async def describe(handler: Handler, user: str) -> dict[str, Any]:
    """Bucket and usage of ``user``; without usage, and with a message, while the store is down."""
    keys = handler.portal.s3_keys
    with in_words():
        place = await keys.place(user)
    found: dict[str, Any] = {
        "user": user,
        "endpoint": place.endpoint if place else None,
        "region": place.region if place else None,
        "bucket": place.bucket if place else None,
        "team_buckets": place.team_buckets if place else {},
        "usage": None,
        "message": None if place else NO_KEYS,
    }
    if place is None:
        return found
    try:
        with in_words():
            async with asyncio.timeout(STORE_SECONDS):
                found["usage"] = as_data(await keys.usage(user))
    except PortalError as error:
        reached = error.code != "cluster_unavailable"
        found["message"] = error.message if reached else "The S3 storage does not answer in time."
    return found


class Credentials(Handler):
    """`api/s3/credentials`."""

    async def post(self) -> None:
        scopes = (self.current_user or {}).get("scopes") or ()
        user = owner_of(self, self.caller.is_admin and MANAGES_USERS in scopes)
        mine = user == self.caller.user
        keys = self.portal.s3_keys
        with in_words():
            if not mine and await keys.place(user) is None:
                raise PortalError(404, "s3_no_key", f"{user} has no S3 key to rotate.")
            self.portal.departures.note_key(user)
            fresh = await keys.rotate(user)
        answer: dict[str, Any] = {
            "user": user,
            "access_key": fresh.access_key,
            "endpoint": fresh.endpoint,
            "region": fresh.region,
            "bucket": fresh.bucket,
            "team_buckets": dict(fresh.team_buckets),
        }
        if mine:
            # told this once, to its owner; Handler sets Cache-Control: no-store on all answers
            answer["secret_key"] = fresh.secret_key
        self.write_json(answer, 201)
