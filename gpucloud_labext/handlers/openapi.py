"""`api/openapi.json`, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .._version import __version__
from . import routes
from .base import Handler

_ERROR = {"$ref": "#/components/schemas/Error"}


class OpenAPI(Handler):
    async def get(self) -> None:
        self.write_json(document(routes.ROUTES, self.base_url + routes.PREFIX + "/"))


def document(table: Iterable[routes.Route], prefix: str) -> dict[str, Any]:
    """The table in OpenAPI 3.1; paths are relative to ``prefix``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpucloud in a user's server",
            "version": __version__,
            "description": "Log in as to the server itself: its cookie, or a token of the hub. "
            "With a cookie, all but GET need the header X-XSRFToken.",
        },
        "servers": [{"url": prefix}],
        "paths": {f"/{_plain(route.path)}": _path(route) for route in table},
        "components": {
            "schemas": {"Error": _error_schema()},
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"}
            },
        },
        "security": [{"token": []}],
    }


def _plain(path: str) -> str:
    return path.replace("...}", "}")


def _path(route: routes.Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        verb.lower(): _operation(route, verb, summary) for verb, summary in route.verbs.items()
    }
    names = re.findall(r"\{(\w+)", route.path)
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    return described


def _operation(route: routes.Route, verb: str, summary: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "default": {
                "description": "Refused or failed",
                "content": {"application/json": {"schema": _ERROR}},
            },
            "2XX": {"description": "Done", "content": {route.answers: {}}},
        },
    }
    if verb == "GET" and route.query:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in route.query.items()
        ]
    if verb == "POST" and route.body:
        fields = {name: {"description": text} for name, text in route.body.items()}
        schema = {"type": "object", "properties": fields, "additionalProperties": False}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _error_schema() -> dict[str, Any]:
    fields = {
        "code": {"type": "string", "description": "stable"},
        "message": {"type": "string", "description": "for a person"},
        "details": {"type": "object"},
    }
    return {"type": "object", "properties": fields, "required": list(fields)}
