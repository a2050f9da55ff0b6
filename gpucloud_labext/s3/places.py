"""Names of places, as people type them: `s3://bucket/x`, `s3/x` as in the file browser, or a file
of the home volume. Pure but for the environment that names the buckets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError

DRIVE = "s3"  # the folder of the own bucket in the file browser; `s3-<team>` are the teams'
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Place:
    """A key or the beginning of keys in ``bucket``, or, where that is empty, a path on the disk.

    ``as_folder``: it was typed with a slash at its end.
    """

    bucket: str
    key: str
    as_folder: bool = False

    @property
    def is_s3(self) -> bool:
        return bool(self.bucket)

    @property
    def path(self) -> Path:
        return Path(self.key).expanduser()

    @property
    def name(self) -> str:
        """The last part of it; empty for a whole bucket."""
        return self.key.rpartition("/")[2] if self.is_s3 else self.path.resolve().name

    def joined(self, relative: str) -> Place:
        """``relative`` (with slashes) in this folder."""
        if self.is_s3:
            return Place(self.bucket, f"{self.key}/{relative}".strip("/"))
        return Place("", str(self.path / relative))

    def __str__(self) -> str:
        if not self.is_s3:
            return self.key
        return f"s3://{self.bucket}/{self.key}"


def team_buckets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The buckets of the user's teams: team -> bucket."""
    try:
        found = json.loads(environment.get("GPUCLOUD_S3_TEAM_BUCKETS") or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):  # the own bucket does not suffer from what somebody set there
        return {}
    return {str(team): str(bucket) for team, bucket in found.items()}


def drives(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The file browser's folders of buckets: name -> bucket."""
    own = environment.get("GPUCLOUD_S3_BUCKET")
    found = {DRIVE: own} if own else {}
    teams = team_buckets(environment)
    return found | {f"{DRIVE}-{team}": bucket for team, bucket in teams.items()}


def parse(text: str, environment: Mapping[str, str] = os.environ) -> Place:
    """What ``text`` names. Raises LabError. A folder `s3` on the disk is `./s3`."""
    as_folder = text.endswith("/")
    if text.startswith("s3://"):
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise LabError(400, "usage", f"{text[:200]!r} names no bucket: s3://BUCKET/KEY")
        return _in_bucket(bucket, key, as_folder, text)
    first, _, rest = text.partition("/")
    bucket = drives(environment).get(first, "")
    if bucket:
        return _in_bucket(bucket, rest, as_folder, text)
    if not text:
        raise LabError(400, "usage", "An empty name is no place; the home is `~`, here is `.`")
    return Place("", text, as_folder)


def _in_bucket(bucket: str, key: str, as_folder: bool, text: str) -> Place:
    parts = [part for part in key.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise LabError(400, "usage", f"{text[:200]!r}: S3 knows no . and .. in names")
    return Place(bucket, "/".join(parts), as_folder or not parts)
