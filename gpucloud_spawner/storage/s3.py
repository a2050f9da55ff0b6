"""What gpucloud wants of an S3 store: a key pair and a bucket per user, a bucket per team.

The interface (`S3Provider`), what it returns and raises, and the names of buckets. How a store is
talked to is in the providers (`s3_local`, `s3_ceph`, `s3_static`); where keys are kept is `keys`.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from kubespawner.slugs import safe_slug

# Newer boto3 and aws send and demand checksums that many stores of others (rclone, older Ceph)
# do not know; data are still covered by TLS, Content-MD5 and the signature.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-dataintegrity.html
NO_EXTRA_CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}

# The strictest common part of https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_BUCKET_LENGTH = 63
_SLUG_LENGTH = 40


class S3Error(Exception):
    """An S3 store does not do what was asked; the text is for a person, ``code`` a stable slug."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Credentials:
    """A user's key pair and what it reaches. Never log it: even its repr hides the secret."""

    access_key: str
    secret_key: str = field(repr=False)
    endpoint: str
    region: str
    bucket: str
    team_buckets: Mapping[str, str] = field(default_factory=dict)  # team -> bucket
    settings: Mapping[str, str] = field(default_factory=lambda: dict(NO_EXTRA_CHECKSUMS))


@dataclass(frozen=True)
class Usage:
    """What a user's own bucket holds; None where the store cannot tell."""

    bytes: int | None
    objects: int | None
    quota_bytes: int | None = None  # None: no quota


@runtime_checkable
class S3Provider(Protocol):
    """One S3 store. Every method may raise S3Error and may be repeated after a failure."""

    async def ensure_user(
        self, user: str, teams: Collection[str], current: str = ""
    ) -> Credentials:
        """Bucket, access to exactly ``teams``' buckets, and a living key.

        The key is ``current`` (an access key) where that still lives, else another or a new one.
        """

    async def new_key(self, user: str, teams: Collection[str]) -> Credentials:
        """One more key beside the present ones: the first half of a rotation."""

    async def revoke(self, user: str, keep: str = "") -> None:
        """End all keys but ``keep``. They are dead when this returns; data stay."""

    async def usage(self, user: str) -> Usage:
        """What the user's own bucket holds."""

    async def purge(self, user: str) -> None:
        """Delete the user's keys and all data of the user's own bucket, for good."""


class Shared:
    """Base of providers: traitlets deep-copies configured values for every spawner, and one
    provider with its locks is meant for all of them."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def alone(self, what: str) -> asyncio.Lock:
        """For one change of ``what`` at a time, such as two servers of a user that start."""
        return self._locks[what]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def user_slug(user: str) -> str:
    """The user's name as a part of bucket and Secret names; different for different names."""
    return _slug(user)


def user_bucket(user: str, prefix: str = "") -> str:
    """The bucket of a user; never that of a team, whatever their names."""
    return f"{prefix}user-{_slug(user)}"


def team_bucket(team: str, prefix: str = "") -> str:
    """The bucket of a team."""
    return f"{prefix}team-{_slug(team)}"


def check_prefix(prefix: str) -> str:
    """``prefix``, which goes before all bucket names. Raises ValueError."""
    if len(prefix) > _BUCKET_LENGTH - _SLUG_LENGTH - len("user-"):
        raise ValueError(f"bucket prefix {prefix!r} is longer than 18 characters")
    if prefix and not _BUCKET.fullmatch(f"{prefix}user-x"):
        raise ValueError(f"bucket prefix {prefix!r} must be of a-z, 0-9 and single hyphens")
    if prefix.startswith(("xn--", "sthree-")):
        raise ValueError(f"bucket prefix {prefix!r} is reserved by S3")
    return prefix


def taken(what: str, user: str) -> S3Error:
    """The answer where a name derived from ``user`` belongs to another one."""
    return S3Error(
        f"The S3 {what} made for {user!r} belongs to another user. Ask an administrator.",
        "s3_name_taken",
    )


def _slug(name: str) -> str:
    return safe_slug(name, is_valid=_is_plain, max_length=_SLUG_LENGTH)


def _is_plain(name: str) -> bool:
    # ends reserved by S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    return bool(re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", name)) and not name.endswith("-s3alias")
