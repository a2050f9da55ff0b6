"""The OpenAPI document, made from the table of routes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._version import __version__
from .auth import Need
from .contract import Field, Verb

if TYPE_CHECKING:
    from .routes import Route

_ERRORS = {
    "400": "Bad input; nothing was stored. `details` has what is allowed",
    "401": "No token, or one that the hub does not know",
    "403": "Not with these rights",
    "503": "The database, the hub or the cluster does not answer; try again",
}


def document(prefix: str, routes: Iterable[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes that are no pages."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gpucloud",
            "version": __version__,
            "description": "Usage, cost, budgets and GPUs. Times are RFC 3339 in UTC.",
        },
        "servers": [{"url": prefix}],
        "paths": {
            f"/{route.path}": {
                method.lower(): _operation(route.path, verb) for method, verb in route.verbs.items()
            }
            for route in routes
            if not route.is_page
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token <token>` or `Bearer <token>`: a token of the hub",
                }
            },
            "schemas": {"Error": _ERROR_SCHEMA},
        },
    }


_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "string", "description": "stable"},
        "message": {"type": "string", "description": "for a person"},
        "details": {"type": "object"},
    },
}


def _operation(path: str, verb: Verb) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    operation: dict[str, Any] = {
        "summary": verb.summary,
        "parameters": in_path + [_parameter(field) for field in verb.parameters],
        "responses": {
            str(verb.status): {
                "description": "Done",
                "content": {verb.answers: {"schema": {}}},
            },
            **{
                status: {
                    "description": text,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    },
                }
                for status, text in _ERRORS.items()
            },
        },
        "x-scopes-one-of": sorted(verb.need.value),
        "security": [] if verb.need is Need.NOTHING else [{"token": []}],
    }
    if verb.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _body_schema(verb.body)}},
        }
    return operation


def _parameter(field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": field.name,
        "in": "query",
        "required": field.required,
        "description": field.text,
        "schema": field.schema(),
    }
    if field.example:
        found["example"] = field.example
    return found


def _body_schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [field.name for field in fields if field.required],
        "properties": {
            field.name: {**field.schema(), "description": field.text} for field in fields
        },
    }
