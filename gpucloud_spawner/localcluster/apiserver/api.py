"""The verbs over HTTP: a handler turns a request into an operation and its result into a response.

Certificates, tokens and the life of the server are in `server.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from . import requests, tables
from .errors import (
    APIError,
    bad_request,
    internal,
    method_not_allowed,
    not_implemented,
    unsupported_media_type,
)
from .listing import ListOptions, encode_page, read_page
from .nodeproxy import NodeProxy
from .operations import DeleteOptions, Operations
from .patch import APPLY, apply
from .podexec import PodExec
from .podlogs import PodLogs
from .requests import Target
from .selectors import parse as parse_selector
from .store import Object, Record
from .watching import Watcher, WatchOptions, json_renderer

log = logging.getLogger(__name__)
_JSON = {"Content-Type": "application/json"}


def json_response(
    body: bytes, status: int = 200, warnings: list[str] | None = None
) -> web.Response:
    response = web.Response(body=body, status=status, headers=_JSON)
    for warning in warnings or []:
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def error_response(error: APIError) -> web.Response:
    return json_response(orjson.dumps(error.status()), error.code)


class API:
    """Kubernetes' resource paths (/api/v1/..., /apis/...)."""

    def __init__(
        self, operations: Operations, logs: PodLogs, execs: PodExec, proxy: NodeProxy
    ) -> None:
        self._operations = operations
        self._store = operations.store
        self._logs = logs
        self._execs = execs
        self._proxy = proxy
        self._watchers: set[Watcher] = set()
        self._handlers: dict[str, Callable[..., Any]] = {
            "GET": self._get,
            "HEAD": self._get,
            "POST": self._post,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }

    def end_watches(self) -> None:
        for watcher in tuple(self._watchers):
            watcher.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        target = requests.parse_path(request.path, request.method)
        if target.subresource == "exec" and request.method in ("GET", "POST"):
            return await self._execs.serve(request, target.namespace, target.name)
        if target.subresource == "proxy":
            return await self._proxy.serve(request, target.name)
        handler = self._handlers.get(request.method)
        if handler is None:
            raise method_not_allowed()
        response: web.StreamResponse = await handler(request, target)
        return response

    # -- reading

    async def _get(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource = target.resource
        if target.subresource == "log":
            return await self._logs.stream(request, target.namespace, target.name)
        if target.subresource not in ("", "status"):
            raise method_not_allowed()
        if target.name:
            if resource.namespaced and not target.namespace:
                raise method_not_allowed()
            record = self._store.get(resource, target.namespace, target.name)
            return self._one(request, target, record)
        selector = parse_selector(
            resource,
            request.query.get("labelSelector", ""),
            request.query.get("fieldSelector", ""),
        )
        if requests.boolean(request, "watch"):
            return await self._watch(request, target, selector)
        options = ListOptions(
            selector=selector,
            limit=max(requests.integer(request, "limit") or 0, 0),
            token=request.query.get("continue", ""),
            version=requests.resource_version(request),
            match=request.query.get("resourceVersionMatch", ""),
        )
        page = read_page(self._store, resource, target.namespace, options)
        form = tables.wanted(request)
        if form is not None:
            return json_response(tables.encode(resource, page.records, page.metadata, form))
        return json_response(encode_page(resource, page))

    def _one(
        self,
        request: web.Request,
        target: Target,
        record: Record,
        status: int = 200,
        warnings: list[str] | None = None,
    ) -> web.Response:
        resource = target.resource
        form = tables.wanted(request)
        if form is not None:
            metadata = {"resourceVersion": str(record.version)}
            return json_response(
                tables.encode(resource, [record], metadata, form), status, warnings
            )
        return json_response(resource.head + record.body[1:], status, warnings)

    async def _watch(
        self, request: web.Request, target: Target, selector: Any
    ) -> web.StreamResponse:
        options = self._watch_options(request, selector)
        form = tables.wanted(request)
        resource = target.resource
        render = json_renderer(resource) if form is None else tables.renderer(resource, form)
        transport = request.transport
        abort = transport.abort if transport else lambda: None
        watcher = Watcher(
            self._store,
            resource,
            target.namespace,
            options,
            render,
            abort,
        )
        response = web.StreamResponse(headers=_JSON)
        response.enable_chunked_encoding()
        self._watchers.add(watcher)
        try:
            await response.prepare(request)
            # The client waits for the headers before it considers itself connected.
            await response.write(b"")
            await watcher.run(response.write)
        except ConnectionError:
            log.debug("a watch of %s lost its client", resource.plural)
        except Exception:  # the border: half a stream cannot become a Status, so it ends
            log.exception("a watch of %s failed", resource.plural)
            abort()
        finally:
            self._watchers.discard(watcher)
        return response

    def _watch_options(self, request: web.Request, selector: Any) -> WatchOptions:
        initial = request.query.get("sendInitialEvents")
        send_initial = requests.boolean(request, "sendInitialEvents") if initial else None
        match = request.query.get("resourceVersionMatch", "")
        if send_initial is not None and match != "NotOlderThan":
            raise bad_request(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
                "resourceVersionMatch to NotOlderThan"
            )
        return WatchOptions(
            selector=selector,
            version=requests.resource_version(request),
            bookmarks=requests.boolean(request, "allowWatchBookmarks"),
            initial_events=send_initial,
            timeout=requests.integer(request, "timeoutSeconds"),
        )

    # -- writing

    async def _post(self, request: web.Request, target: Target) -> web.StreamResponse:
        resource = target.resource
        if target.subresource == "binding":
            binding, _ = requests.decode_object(
                "Binding", "v1", await requests.read_object(request), "Ignore"
            )
            dry_run = requests.dry_run(request)
            self._operations.bind(target.namespace, target.name, binding, dry_run)
            return json_response(_SUCCESS, 201)
        if target.name or (resource.namespaced and not target.namespace):
            raise method_not_allowed()
        obj, warnings = await self._decoded(request, target)
        dry_run = requests.dry_run(request)
        record = self._operations.create(resource, target.namespace, obj, dry_run)
        return self._one(request, target, record, 201, warnings)

    async def _decoded(self, request: web.Request, target: Target) -> tuple[Object, list[str]]:
        return requests.decode_object(
            target.resource.kind,
            target.resource.api_version,
            await requests.read_object(request),
            requests.field_validation(request),
        )

    async def _put(self, request: web.Request, target: Target) -> web.StreamResponse:
        self._check_writable(target)
        obj, warnings = await self._decoded(request, target)
        record = self._operations.update(
            target.resource,
            target.namespace,
            target.name,
            lambda _current: obj,
            target.subresource,
            requests.dry_run(request),
        )
        return self._one(request, target, record, 200, warnings)

    def _check_writable(self, target: Target) -> None:
        missing_namespace = target.resource.namespaced and not target.namespace
        if not target.name or missing_namespace or target.subresource in _NOT_WRITABLE:
            raise method_not_allowed()

    async def _patch(self, request: web.Request, target: Target) -> web.StreamResponse:
        kind = requests.content_type(request)
        if kind in APPLY:
            raise not_implemented("server-side apply (PATCH with application/apply-patch)")
        self._check_writable(target)
        if kind not in _PATCH_TYPES:
            raise unsupported_media_type()
        patch = requests.parse_json(await requests.read_body(request))
        resource, validation = target.resource, requests.field_validation(request)
        warnings: list[str] = []

        def change(current: Object) -> Object:
            patched = apply(kind, resource.kind, current, patch)
            obj, told = requests.decode_object(
                resource.kind, resource.api_version, patched, validation
            )
            warnings.extend(told)
            return obj

        record = self._operations.update(
            resource,
            target.namespace,
            target.name,
            change,
            target.subresource,
            requests.dry_run(request),
        )
        return self._one(request, target, record, 200, warnings)

    # -- deleting

    async def _delete(self, request: web.Request, target: Target) -> web.StreamResponse:
        if target.subresource:
            raise method_not_allowed()
        options = await self._delete_options(request)
        if not target.name:
            return await self._delete_collection(request, target, options)
        if target.resource.namespaced and not target.namespace:
            raise method_not_allowed()
        resource = target.resource
        record, gone = self._operations.delete(resource, target.namespace, target.name, options)
        strategy = self._operations.strategy(resource)
        told = [strategy.delete_warning] if strategy.delete_warning and not options.policy else []
        if gone and not strategy.returns_deleted:
            return json_response(_deleted(resource, record), warnings=told)
        return json_response(resource.head + record.body[1:], warnings=told)

    async def _delete_options(self, request: web.Request) -> DeleteOptions:
        body = await requests.read_body(request)
        given: dict[str, Any] = {}
        if body.strip():
            data = requests.parse_json(body) or {}
            version = data.get("apiVersion", "v1") if isinstance(data, dict) else "v1"
            given, _ = requests.decode_object("DeleteOptions", version, data, "Ignore")
        grace = requests.integer(request, "gracePeriodSeconds")
        policy = given.get("propagationPolicy") or request.query.get("propagationPolicy", "")
        if policy not in ("", "Foreground", "Background", "Orphan"):
            raise bad_request(
                f'propagationPolicy: Unsupported value: "{policy}": supported values: '
                '"Background", "Foreground", "Orphan"'
            )
        if given.get("orphanDependents") is not None and not policy:
            policy = "Orphan" if given["orphanDependents"] else "Background"
        conditions = given.get("preconditions", {})
        return DeleteOptions(
            grace=given.get("gracePeriodSeconds", grace),
            policy=policy,
            uid=conditions.get("uid", ""),
            version=conditions.get("resourceVersion", ""),
            dry_run=requests.dry_run(request, given),
        )

    async def _delete_collection(
        self, request: web.Request, target: Target, options: DeleteOptions
    ) -> web.StreamResponse:
        resource = target.resource
        if resource.namespaced and not target.namespace:
            raise method_not_allowed()
        if resource.plural == "namespaces":
            raise method_not_allowed()
        selector = parse_selector(
            resource,
            request.query.get("labelSelector", ""),
            request.query.get("fieldSelector", ""),
        )
        page = read_page(self._store, resource, target.namespace, ListOptions(selector))
        for record in page.records:
            self._operations.delete(resource, *record.key, options)
        return json_response(encode_page(resource, page))


_NOT_WRITABLE = frozenset({"log", "binding", "exec", "proxy"})
_PATCH_TYPES = frozenset(
    {
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/strategic-merge-patch+json",
    }
)
_SUCCESS = orjson.dumps(
    {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
)


def _deleted(resource: Any, record: Record) -> bytes:
    details = {"name": record.key[1], "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    details["uid"] = record.load()["metadata"]["uid"]
    return orjson.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
    )


async def answer(handler: Callable[..., Any], request: web.Request) -> web.StreamResponse:
    """The border of every request: whatever goes wrong becomes a Status object."""
    try:
        response: web.StreamResponse = await handler(request)
    except APIError as error:
        return error_response(error)
    except Exception:
        log.exception("%s %s failed", request.method, request.path_qs)
        return error_response(internal("see the log of the API server"))
    return response
