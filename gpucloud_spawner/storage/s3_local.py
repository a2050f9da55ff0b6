"""The embedded S3 server's users and keys: a folder that it shares with us.

The folder's layout is the interface and is described in `gpucloud_spawner/s3server/__init__.py`;
nothing of that package is imported here. For one machine only.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import string
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .s3 import Credentials, S3Error, Shared, Usage, taken, team_bucket, user_bucket

REGION = "us-east-1"
# The server looks at a folder again after so long (its --dir-cache-time, one second): a key that
# was taken away could list names until then.
LAPSE_SECONDS = 1.2
_KEY_ALPHABET = string.ascii_uppercase + string.digits

Result = TypeVar("Result")


class LocalS3(Shared):
    """Keys and buckets of the embedded server whose data are in ``data``."""

    def __init__(self, data: str | Path, endpoint: str) -> None:
        super().__init__()
        self.data = Path(data)
        self.endpoint = endpoint

    def __repr__(self) -> str:
        return f"LocalS3(data={str(self.data)!r}, endpoint={self.endpoint!r})"

    async def ensure_user(
        self, user: str, teams: Collection[str], current: str = ""
    ) -> Credentials:
        async with self.alone(user):
            return await self._do(lambda: self._ensure(user, teams, current))

    async def new_key(self, user: str, teams: Collection[str]) -> Credentials:
        return await self._do(lambda: self._new_key(user, teams))

    async def revoke(self, user: str, keep: str = "") -> None:
        if await self._do(lambda: self._revoke(user, keep)):
            await asyncio.sleep(LAPSE_SECONDS)

    async def usage(self, user: str) -> Usage:
        return await self._do(lambda: _measure(self._root(user) / user_bucket(user)))

    async def purge(self, user: str) -> None:
        await self.revoke(user)
        await self._do(lambda: self._purge(user))

    async def _do(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise S3Error(
                f"The folder of the embedded S3 server cannot be used: {error}", "s3_unreachable"
            ) from error

    # --- everything below blocks, and runs in a thread -----------------------------------------

    def _root(self, user: str) -> Path:
        return self.data / "users" / user_bucket(user)

    def _ensure(self, user: str, teams: Collection[str], current: str) -> Credentials:
        buckets = self._make_root(user, teams)
        own = {record["access_key"]: record for record in self._records(user)}
        record = own.get(current) or next(iter(own.values()), None) or self._make_key(user)
        return self._credentials(user, record, buckets)

    def _new_key(self, user: str, teams: Collection[str]) -> Credentials:
        buckets = self._make_root(user, teams)
        return self._credentials(user, self._make_key(user), buckets)

    def _credentials(
        self, user: str, record: dict[str, Any], buckets: dict[str, str]
    ) -> Credentials:
        return Credentials(
            access_key=record["access_key"],
            secret_key=record["secret_key"],
            endpoint=self.endpoint,
            region=REGION,
            bucket=user_bucket(user),
            team_buckets=buckets,
        )

    def _make_root(self, user: str, teams: Collection[str]) -> dict[str, str]:
        """The user's folder: the own bucket, and a link for each team. Returns team -> bucket."""
        self._claim(user)
        root = self._root(user)
        (root / user_bucket(user)).mkdir(parents=True, exist_ok=True)
        buckets = {team: team_bucket(team) for team in sorted(teams)}
        wanted = set(buckets.values())
        for entry in list(root.iterdir()):
            if entry.is_symlink() and entry.name not in wanted:
                entry.unlink()
        for name in wanted:
            (self.data / "teams" / name).mkdir(parents=True, exist_ok=True)
            link = root / name
            if link.exists() and not link.is_symlink():
                # a bucket that the user made before the team was there: kept under another name
                link.rename(root / f"own-{name}-{uuid.uuid4().hex[:6]}")
            if not link.is_symlink():
                link.symlink_to(Path("..", "..", "teams", name))
        return buckets

    def _claim(self, user: str) -> None:
        """Remember whose folder it is: two names must never share one. Raises S3Error."""
        path = self.data / "owners" / user_bucket(user)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write(path, user)
        if path.read_text(encoding="utf-8") != user:
            raise taken("bucket", user)

    def _records(self, user: str) -> Iterator[dict[str, Any]]:
        for path in sorted((self.data / "keys").glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:  # revoked meanwhile
                continue
            if record["user"] == user:
                yield record

    def _make_key(self, user: str) -> dict[str, Any]:
        name = "GC" + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(18))
        record = {"access_key": name, "secret_key": secrets.token_urlsafe(30), "user": user}
        for folder in ("keys", "views"):
            (self.data / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.data / "views" / name).symlink_to(Path("..", "users", user_bucket(user)))
        # last: a key without its view would reach a folder that nobody has made
        _write(self.data / "keys" / f"{name}.json", json.dumps(record))
        return record

    def _revoke(self, user: str, keep: str) -> bool:
        ended = False
        for record in list(self._records(user)):
            name = record["access_key"]
            if name == keep:
                continue
            # the server may remember the key for minutes, so what it reaches goes first: a file
            # in the view's place lets nothing be read, listed or made below it
            _write(self.data / "views" / name, "")
            (self.data / "keys" / f"{name}.json").unlink(missing_ok=True)
            ended = True
        return ended

    def _purge(self, user: str) -> None:
        root = self._root(user)
        if not root.exists():
            return
        self._claim(user)
        doomed = self.data / "purged" / uuid.uuid4().hex
        doomed.parent.mkdir(exist_ok=True, mode=0o700)
        root.rename(doomed)  # at once out of reach, however long the rest takes
        shutil.rmtree(doomed)
        (self.data / "owners" / user_bucket(user)).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a part; only the owner may read it."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _measure(bucket: Path) -> Usage:
    size = count = 0
    for root, _, names in os.walk(bucket):
        for name in names:
            if name.startswith(".rclone_temp_"):  # an upload under way
                continue
            try:
                size += (Path(root) / name).stat().st_size
            except FileNotFoundError:
                continue
            count += 1
    return Usage(size, count)
