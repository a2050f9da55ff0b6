"""Keys that an administrator has made by hand: a YAML file of users, beside the hub, mode 0600."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from .s3 import Credentials, S3Error, Shared, Usage


class StaticS3(Shared):
    """Keys from ``file``, which is read at every start, so that a change needs no restart::

        ada: {access_key: ..., secret_key: ..., bucket: ada-data}
        alan: {access_key: ..., secret_key: ..., bucket: alan-data,
               team_buckets: {vision: vision-data}}

    It can make, end and measure nothing: that is done where the keys come from.
    """

    def __init__(self, endpoint: str, file: str | Path, region: str = "us-east-1") -> None:
        super().__init__()
        self.endpoint = endpoint
        self.file = Path(file)
        self.region = region

    def __repr__(self) -> str:
        return f"StaticS3(endpoint={self.endpoint!r}, file={str(self.file)!r})"

    async def ensure_user(
        self, user: str, teams: Collection[str], current: str = ""
    ) -> Credentials:
        entries = await asyncio.to_thread(self._read)
        entry = entries.get(user)
        if entry is None:
            raise S3Error(
                f"There is no S3 key for {user!r} yet. Ask an administrator for one.", "s3_no_key"
            )
        try:
            team_buckets = {t: b for t, b in entry.get("team_buckets", {}).items() if t in teams}
            return Credentials(
                access_key=str(entry["access_key"]),
                secret_key=str(entry["secret_key"]),
                endpoint=self.endpoint,
                region=self.region,
                bucket=str(entry["bucket"]),
                team_buckets=team_buckets,
            )
        except (KeyError, AttributeError, TypeError) as error:
            # not the error's text: it may be a part of the entry
            raise S3Error(
                f"The S3 key of {user!r} in {self.file} needs access_key, secret_key and bucket.",
                "s3_misconfigured",
            ) from error

    def _read(self) -> dict[str, Any]:
        try:
            with self.file.open(encoding="utf-8") as stream:
                entries = yaml.safe_load(stream) or {}
        except (OSError, yaml.YAMLError) as error:
            # a YAML error quotes the line, which may hold a secret
            kind = type(error).__name__
            raise S3Error(
                f"The file of S3 keys {self.file} cannot be read ({kind}).", "s3_misconfigured"
            ) from None
        if not isinstance(entries, dict):
            raise S3Error(f"{self.file} must map users to keys.", "s3_misconfigured")
        return entries

    async def new_key(self, user: str, teams: Collection[str]) -> Credentials:
        raise self._by_hand("made")

    async def revoke(self, user: str, keep: str = "") -> None:
        raise self._by_hand("ended")

    async def usage(self, user: str) -> Usage:
        return Usage(None, None)

    async def purge(self, user: str) -> None:
        raise self._by_hand("purged")

    @staticmethod
    def _by_hand(done: str) -> S3Error:
        return S3Error(
            f"S3 keys are given by an administrator here; they cannot be {done} by gpucloud.",
            "s3_unsupported",
        )
