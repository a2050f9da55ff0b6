"""A user of a real embedded S3 server, and what a pod of his has: variables and a mounted file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpucloud_labext import s3
from gpucloud_spawner.storage.s3 import Credentials
from gpucloud_spawner.storage.s3_local import LocalS3
from tests.labext.contents.servers import write_keys
from tests.storage import servers


@dataclass
class Pod:
    """What a pod of ada's sees."""

    provider: LocalS3
    keys: Credentials
    file: Path

    async def rotate(self) -> Credentials:
        """As the service does it: a new key, the file switched, the old key dead."""
        old, fresh = self.keys, await self.provider.new_key("ada", ["vision"])
        self.keys = fresh
        write_keys(self.file, fresh.access_key, fresh.secret_key)
        await self.provider.revoke("ada", keep=fresh.access_key)
        return old

    def environment(self) -> dict[str, str]:
        keys = self.keys
        return {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_ENDPOINT_URL_S3": keys.endpoint,
            "AWS_DEFAULT_REGION": keys.region,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.file),
            "GPUCLOUD_S3_BUCKET": keys.bucket,
            "GPUCLOUD_S3_TEAM_BUCKETS": json.dumps(dict(keys.team_buckets)),
            **keys.settings,
        }

    def client(self) -> Any:
        return servers.client(self.keys)

    def put(self, key: str, data: bytes = b"data", team: str = "") -> None:
        bucket = self.keys.team_buckets[team] if team else self.keys.bucket
        self.client().put_object(Bucket=bucket, Key=key, Body=data)

    def read(self, key: str) -> bytes:
        return servers.get(self.keys, key)

    def names(self) -> list[str]:
        return servers.names(self.keys)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
async def pod(s3_server: servers.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    provider = servers.provider(s3_server)
    await provider.purge("ada")
    keys = await provider.ensure_user("ada", ["vision"])
    file = tmp_path / "mounted" / "credentials"
    file.parent.mkdir()
    write_keys(file, keys.access_key, keys.secret_key)
    found = Pod(provider, keys, file)
    for name in os.environ:
        if name.startswith(("AWS_", "GPUCLOUD_")):
            monkeypatch.delenv(name)
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()  # made by another test, with its environment
    return found
