"""Kubernetes Status objects: every error that the API server answers, worded as Kubernetes does.

Which rule was broken is decided elsewhere; here is only how it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .resources import Resource

Status = dict[str, Any]


class APIError(Exception):
    """A failure that is answered with a Status object."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata: dict[str, Any] = {}

    def status(self) -> Status:
        status: Status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": self.code}


@dataclass(frozen=True)
class Cause:
    """One broken rule of a validation."""

    reason: str
    field: str
    message: str


def quoted(value: object) -> str:
    """A value as Go prints it in a validation message."""
    return orjson.dumps(value).decode()


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", field, f"Required value: {why}" if why else "Required value")


def invalid_value(field: str, value: object, why: str) -> Cause:
    return Cause("FieldValueInvalid", field, f"Invalid value: {quoted(value)}: {why}")


def not_supported(field: str, value: object, allowed: Iterable[str]) -> Cause:
    known = ", ".join(quoted(a) for a in sorted(allowed))
    return Cause(
        "FieldValueNotSupported",
        field,
        f"Unsupported value: {quoted(value)}: supported values: {known}",
    )


def forbidden_field(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", field, f"Forbidden: {why}")


def duplicate(field: str, value: object) -> Cause:
    return Cause("FieldValueDuplicate", field, f"Duplicate value: {quoted(value)}")


def field_not_found(field: str, value: object) -> Cause:
    return Cause("FieldValueNotFound", field, f"Not found: {quoted(value)}")


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> APIError:
    return APIError(
        404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name)
    )


def already_exists(resource: Resource, name: str) -> APIError:
    return APIError(
        409,
        "AlreadyExists",
        f'{resource.qualified} "{name}" already exists',
        _details(resource, name),
    )


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(resource: Resource, name: str, why: str = MODIFIED) -> APIError:
    return APIError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        _details(resource, name),
    )


def forbidden(resource: Resource, name: str, why: str) -> APIError:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return APIError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(resource, name))


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> APIError:
    told = [f"{c.field}: {c.message}" for c in causes]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    details: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.kind
    details["causes"] = [
        {"reason": c.reason, "message": c.message, "field": c.field} for c in causes
    ]
    return APIError(
        422, "Invalid", f'{resource.qualified_kind} "{name}" is invalid: {text}', details
    )


def bad_request(message: str) -> APIError:
    return APIError(400, "BadRequest", message)


def unauthorized() -> APIError:
    return APIError(401, "Unauthorized", "Unauthorized")


def unknown_resource() -> APIError:
    return APIError(404, "NotFound", "the server could not find the requested resource", {})


def not_implemented(what: str) -> APIError:
    return APIError(
        501,
        "NotImplemented",
        f"the local cluster does not implement {what}; use a real Kubernetes cluster for it",
        {},
    )


def method_not_allowed() -> APIError:
    return APIError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        {},
    )


def unsupported_media_type() -> APIError:
    return APIError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def too_large(limit: int) -> APIError:
    return APIError(
        413,
        "RequestEntityTooLarge",
        f"Request entity too large: limit is {limit}",
    )


def expired(message: str) -> APIError:
    return APIError(410, "Expired", message)


def too_old(asked: int, oldest: int) -> APIError:
    return expired(f"too old resource version: {asked} ({oldest})")


def version_too_large(asked: int, current: int) -> APIError:
    return APIError(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        {
            "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ],
            "retryAfterSeconds": 1,
        },
    )


def internal(message: str) -> APIError:
    return APIError(500, "InternalError", f"Internal error occurred: {message}")
