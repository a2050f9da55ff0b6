"""`api/s3`: the service's answers about the own data; a new key."""

from __future__ import annotations

from ..client import service
from .base import Handler


class S3(Handler):
    """Where the bucket is, and how much is in it."""

    async def get(self) -> None:
        self.write_json(await service().request_async("GET", "api/s3"))


class Credentials(Handler):
    """A new key. Its secret comes by the mounted file, so it does not pass through here."""

    async def post(self) -> None:
        self.json_body({})
        told = await service().request_async("POST", "api/s3/credentials", json={})
        told.pop("secret_key", None)
        self.write_json(told, 201)
