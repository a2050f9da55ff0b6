"""Who may use a kubelet's own HTTPS API.

Two ways in:
- the token in the Secret kube-system/kubelet-api: the local cluster's API server shows it;
- a client certificate, as a real API server shows it. It must be signed by the CA that the kubelet
  is told with --client-ca-file, and its user must be allowed to `get nodes/proxy`, which the
  cluster is asked with a SubjectAccessReview, as a real kubelet does in its Webhook mode.
Without that flag the logs of a node of a real cluster are refused; all else works there. A real
API server can only reach the kubelet on the same machine: its address is a loopback one.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import ssl
from pathlib import Path
from typing import Any

from aiohttp import web

from ..client import RETRYABLE, ApiError, KubeClient

log = logging.getLogger(__name__)
TOKEN_SECRET = ("kube-system", "kubelet-api")
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ALLOWED_SECONDS = 300.0  # for which a review's yes counts, as in a kubelet


class Access:
    """Lets a request pass or raises 401 or 403."""

    def __init__(self, client: KubeClient, client_ca: Path | None) -> None:
        self._client = client
        self._client_ca = client_ca
        self._token = ""
        self._allowed: dict[str, float] = {}

    def prepare(self, context: ssl.SSLContext) -> None:
        """Asks clients for a certificate, where one could be checked."""
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL

    async def check(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        if header and await self._is_token(header.removeprefix("Bearer ")):
            return
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        if not certificate:
            raise web.HTTPUnauthorized(text="Unauthorized")
        user, groups = _subject(certificate)
        if not await self._may_proxy(user, groups):
            text = f"Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[proxy])"
            raise web.HTTPForbidden(text=text)

    async def _is_token(self, given: str) -> bool:
        if not self._token:
            namespace, name = TOKEN_SECRET
            try:
                secret = await self._client.get("secrets", name, namespace)
                self._token = base64.b64decode(secret["data"]["token"]).decode()
            except (ApiError, KeyError) as error:
                log.warning("no token for the kubelet's own API: %s", error)
        return bool(self._token) and hmac.compare_digest(given.encode(), self._token.encode())

    async def _may_proxy(self, user: str, groups: list[str]) -> bool:
        loop = asyncio.get_running_loop()
        if self._allowed.get(user, 0.0) > loop.time():
            return True
        wanted = {"verb": "get", "resource": "nodes", "subresource": "proxy"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": wanted},
        }
        try:
            answer = await self._client.request("POST", REVIEWS, body=review)
        except (ApiError, *RETRYABLE) as error:
            log.warning("whether %s may read logs could not be asked: %s", user, error)
            return False
        if (answer.get("status") or {}).get("allowed") is not True:
            return False
        self._allowed[user] = loop.time() + ALLOWED_SECONDS
        return True


def _subject(certificate: dict[str, Any]) -> tuple[str, list[str]]:
    """Kubernetes' user and groups of a client certificate: its common name and organizations."""
    parts = [pair for part in certificate.get("subject", ()) for pair in part]
    names = [value for kind, value in parts if kind == "commonName"]
    groups = [value for kind, value in parts if kind == "organizationName"]
    return (names[-1] if names else ""), [*groups, "system:authenticated"]
