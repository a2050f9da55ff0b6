"""What an endpoint declares: who may call it, its parameters and its body, checked before it runs.

The same declarations make the OpenAPI document (`openapi`), so that it cannot tell anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .auth import Need
from .errors import PortalError

MAX_BODY_BYTES = 64 * 1024
MAX_INTEGER = 2**53  # what every JSON reader can hold
_CONTAINERS: dict[str, type] = {"array": list, "object": dict}


@dataclass(frozen=True)
class Field:
    """A query parameter, or a key of a JSON body."""

    name: str
    text: str
    kind: str = "string"  # or "integer"; in a body also "array" or "object", checked further on
    many: bool = False  # a parameter that may be given more than once: any of the values
    required: bool = False
    allowed: tuple[str, ...] = ()
    example: str = ""
    nullable: bool = False

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        one: dict[str, Any] = {"type": [self.kind, "null"] if self.nullable else self.kind}
        if self.allowed:
            one["enum"] = list(self.allowed)
        return {"type": "array", "items": one} if self.many else one


@dataclass(frozen=True)
class Verb:
    """One method of one path."""

    need: Need
    summary: str
    parameters: tuple[Field, ...] = ()
    body: tuple[Field, ...] | None = None
    answers: str = "application/json"
    status: int = 200


def read_parameters(fields: Sequence[Field], given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Checked query parameters; those that were not given are absent. Raises PortalError (400)."""
    known = {field.name: field for field in fields}
    for name in given:
        if name not in known:
            raise PortalError(
                400,
                "unknown_parameter",
                f"There is no parameter {name[:80]!r} here.",
                allowed=sorted(known),
            )
    values: dict[str, Any] = {}
    for field in fields:
        texts = list(given.get(field.name, ()))
        if not texts:
            if field.required:
                raise _missing(field)
        elif field.many:
            values[field.name] = tuple(_checked(field, text) for text in texts)
        elif len(texts) > 1:
            raise PortalError(
                400, "repeated_parameter", f"Give {field.name} once.", parameter=field.name
            )
        else:
            values[field.name] = _checked(field, texts[0])
    return values


def read_body(fields: Sequence[Field], raw: bytes, content_type: str) -> dict[str, Any]:
    """A checked JSON body. Raises PortalError (400, 415)."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        # also keeps HTML forms of other sites out: they cannot send it
        raise PortalError(415, "not_json", "Send JSON, with Content-Type: application/json.")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PortalError(400, "not_json", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise PortalError(400, "not_json", "The body is not a JSON object.")
    known = {field.name: field for field in fields}
    for name in body:
        if name not in known:
            raise PortalError(
                400, "unknown_field", f"There is no field {name[:80]!r}.", allowed=sorted(known)
            )
    for field in fields:
        if field.name not in body:
            if field.required:
                raise _missing(field)
            continue
        body[field.name] = _checked_json(field, body[field.name])
    return body


def _missing(field: Field) -> PortalError:
    return PortalError(
        400, "missing", f"{field.name} is missing: {field.text}", parameter=field.name
    )


def _checked(field: Field, text: str) -> str | int:
    if field.kind == "integer":
        digits = text.removeprefix("-")
        # ASCII only, and no number of a megabyte: int() would take both
        if not (digits.isascii() and digits.isdigit() and len(digits) < 17):
            raise _bad(field, "a whole number")
        return int(text)
    if field.allowed and text not in field.allowed:
        raise _bad(field, "one of: " + ", ".join(field.allowed), allowed=list(field.allowed))
    return text


def _checked_json(field: Field, value: Any) -> Any:
    if value is None and field.nullable:
        return None
    if field.kind == "integer":
        if type(value) is not int or abs(value) > MAX_INTEGER:
            raise _bad(field, "a whole number")
        return value
    if field.kind in _CONTAINERS:
        if not isinstance(value, _CONTAINERS[field.kind]):
            raise _bad(field, f"an {field.kind} such as {field.example}")
        return value
    if not isinstance(value, str):
        raise _bad(field, f'a string such as "{field.example}"' if field.example else "a string")
    return _checked(field, value)


def _bad(field: Field, what: str, **details: Any) -> PortalError:
    return PortalError(
        400, "bad_value", f"{field.name} must be {what}.", parameter=field.name, **details
    )
