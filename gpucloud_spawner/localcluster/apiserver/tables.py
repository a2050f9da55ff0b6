"""Tables: the rows and columns that `kubectl get` prints, made by the server as Kubernetes does."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from .resources import Resource
from .store import Record
from .watching import Render


def wanted(request: web.BaseRequest) -> str | None:
    return None


def encode(
    resource: Resource, records: Sequence[Record], metadata: dict[str, object], form: str
) -> bytes:
    raise NotImplementedError


def renderer(resource: Resource, form: str) -> Render:
    raise NotImplementedError
