"""Requests to an S3 endpoint with an AWS signature (botocore's), on the event loop.

Both RGW's Admin Ops API and plain S3 take them. Which requests, and what their answers mean, is
the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningKey
from yarl import URL

from .s3 import S3Error


@dataclass(frozen=True)
class Answer:
    """What came back. Its text may hold keys: never log it."""

    status: int
    text: str = field(repr=False)

    @property
    def ok(self) -> bool:
        return self.status < 300


class SignedClient:
    """Requests to ``endpoint`` with one key pair."""

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, region: str, timeout: float
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._key = SigningKey(access_key, secret_key)
        self._region = region
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"SignedClient({self._endpoint!r})"

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. Raises S3Error where the endpoint does not answer."""
        # encoded here once, exactly as it is signed
        words = "&".join(
            f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in (query or {}).items()
        )
        url = f"{self._endpoint}{quote(path)}" + (f"?{words}" if words else "")
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        S3SigV4Auth(self._key, "s3", self._region).add_auth(request)
        limit = aiohttp.ClientTimeout(total=timeout or self._timeout)
        try:
            # a session per request: these are few, and come from more than one event loop
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.request(
                    method, URL(url, encoded=True), data=body, headers=dict(request.headers.items())
                ) as answer,
            ):
                return Answer(answer.status, await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # not the error's text: it may quote the request
            raise S3Error(
                f"The S3 endpoint {self._endpoint} does not answer ({type(error).__name__}).",
                "s3_unreachable",
            ) from None
