"""A small Kubernetes client for the local cluster's own parts: plain dicts over aiohttp.

Here: the REST verbs, watches and errors. It speaks the public API only, so the controllers, the
scheduler and the kubelet run against a real API server as well. The cache and the work queue over
it are in `informer`. Nothing here knows what a pod means; policy belongs to its users.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import kube_config

Obj = dict[str, Any]

# Resources outside the core group. A path may also be given in full ("/apis/g/v1/things").
GROUPS: dict[str, str] = {
    "leases": "/apis/coordination.k8s.io/v1",
    "storageclasses": "/apis/storage.k8s.io/v1",
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "daemonsets": "/apis/apps/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "priorityclasses": "/apis/scheduling.k8s.io/v1",
}
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
RETRYABLE = (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError)
WATCH_SECONDS = 290
REQUESTS_AT_ONCE = 8


class ApiError(Exception):
    """An API server's refusal: HTTP status, Kubernetes reason, message, the whole Status object."""

    def __init__(self, status: int, reason: str, message: str, body: Obj | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.body = body or {}

    @classmethod
    def from_body(cls, status: int, text: str) -> ApiError:
        try:
            body = json.loads(text)
        except json.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            return cls(status, "", text[:500])
        return cls(status, body.get("reason") or "", body.get("message") or text[:500], body)


def object_key(obj: Mapping[str, Any]) -> str:
    """ "namespace/name", or "name" for a cluster-wide object."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def split_key(key: str) -> tuple[str, str]:
    """The namespace ("" if cluster-wide) and name of an object key."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


class KubeClient:
    """One connection pool to one API server. Use as an async context manager."""

    def __init__(self, kubeconfig: str, user_agent: str = "gpucloud-localcluster") -> None:
        self.kubeconfig = kubeconfig
        self.user_agent = user_agent
        self._configuration = type.__call__(Configuration)
        self._loader: Any = None
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | bool = True
        # A burst must not open a TLS connection per pod: each costs half a megabyte on both ends.
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

    @classmethod
    def from_kubeconfig(cls, path: str, user_agent: str = "gpucloud-localcluster") -> KubeClient:
        """A client for the current context of that kubeconfig; it connects on `async with`."""
        return cls(str(path), user_agent)

    async def __aenter__(self) -> Self:
        self._loader = await kube_config.load_kube_config(
            self.kubeconfig, client_configuration=self._configuration, persist_config=False
        )
        self._ssl = self._ssl_context()
        # No limit on connections: every informer keeps one open for its watch.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl, keepalive_timeout=30),
            headers={"User-Agent": self.user_agent, "Accept": "application/json"},
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _ssl_context(self) -> ssl.SSLContext:
        config = self._configuration
        context = ssl.create_default_context(cafile=config.ssl_ca_cert)
        # Many clusters' CAs lack the extensions that the strict mode of Python 3.13 asks for.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
        if not config.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def host(self) -> str:
        """The API server's URL without a slash at its end."""
        return str(self._configuration.host)

    @staticmethod
    def path(resource: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The URL path of a resource: "pods", "leases" or in full "/apis/group/version/plural"."""
        if resource.startswith("/"):
            prefix, _, plural = resource.rpartition("/")
        else:
            prefix, plural = GROUPS.get(resource, "/api/v1"), resource
        parts = [prefix]
        if namespace:
            parts.append(f"namespaces/{namespace}")
        parts.extend(part for part in (plural, name, subresource) if part)
        return "/".join(parts)

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float | None = 30.0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request whose body the caller reads itself; raises ApiError from 400 on."""
        assert self._session is not None, "KubeClient is used outside of `async with`"
        headers: dict[str, str] = {}
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers["Content-Type"] = content_type
        for attempt in (1, 2):
            if token := self._configuration.api_key.get("BearerToken"):
                headers["Authorization"] = token
            async with self._session.request(
                method,
                self.host + path,
                params=params,
                data=data,
                headers=headers,
                server_hostname=self._configuration.tls_server_name,
                proxy=self._configuration.proxy,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10),
            ) as response:
                if response.status == 401 and attempt == 1:
                    # Tokens of exec plugins and token files expire: ask for a fresh one, once.
                    await response.read()
                    self._loader.__dict__.pop("exec_plugin_expiry", None)
                    await self._loader.load_and_set(self._configuration)
                    continue
                if response.status >= 400:
                    raise ApiError.from_body(response.status, await response.text())
                yield response
                return

    async def request(self, method: str, path: str, **kwargs: Any) -> Obj:
        """One request with a JSON answer; arguments as for `open`."""
        async with self._slots, self.open(method, path, **kwargs) as response:
            return json.loads(await response.read())

    async def get(self, resource: str, name: str, namespace: str | None = None) -> Obj:
        return await self.request("GET", self.path(resource, namespace, name))

    async def list(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
    ) -> Obj:
        """The whole list object, fetched in chunks of 500 as kubectl and client-go do."""
        params = _selectors(label_selector, field_selector) | {"limit": "500"}
        if resource_version is not None:
            params["resourceVersion"] = resource_version
        path = self.path(resource, namespace)
        result = await self.request("GET", path, params=params, timeout=60)
        items = result.setdefault("items", None) or []
        while token := (result.get("metadata") or {}).get("continue"):
            params.pop("resourceVersion", None)
            result = await self.request("GET", path, params=params | {"continue": token})
            items.extend(result.get("items") or [])
        result["items"] = items
        return result

    async def create(
        self, resource: str, body: Obj, namespace: str | None = None, *, subresource: str = ""
    ) -> Obj:
        """POST; with `subresource` the name is the body's own (pods/NAME/binding)."""
        name = body["metadata"]["name"] if subresource else ""
        path = self.path(resource, namespace, name, subresource)
        return await self.request("POST", path, body=body)

    async def replace(
        self, resource: str, body: Obj, namespace: str | None = None, *, subresource: str = ""
    ) -> Obj:
        path = self.path(resource, namespace, body["metadata"]["name"], subresource)
        return await self.request("PUT", path, body=body)

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str = "",
    ) -> Obj:
        """PATCH; `kind` is "merge", "strategic" or "json"."""
        path = self.path(resource, namespace, name, subresource)
        return await self.request("PATCH", path, body=patch, content_type=PATCH_TYPES[kind])

    async def patch_status(
        self, resource: str, name: str, patch: Any, namespace: str | None = None, **kwargs: Any
    ) -> Obj:
        return await self.patch(resource, name, patch, namespace, subresource="status", **kwargs)

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        propagation: str | None = None,
    ) -> Obj:
        """DELETE; `uid` is a precondition: the answer is 409 if the name means another object."""
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return await self.request("DELETE", self.path(resource, namespace, name), body=options)

    async def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = WATCH_SECONDS,
    ) -> AsyncIterator[Obj]:
        """The raw watch events until the server ends the watch; an ERROR event raises ApiError."""
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        path = self.path(resource, namespace)
        # Longer than the server's own end, so that a dead connection cannot hang for ever.
        async with self.open("GET", path, params=params, timeout=timeout_seconds + 30) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if not line.strip():
                        continue
                    event: Obj = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(
                            status.get("code") or 500,
                            status.get("reason") or "",
                            status.get("message") or "",
                            status,
                        )
                    yield event


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    params = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in params.items() if value}
