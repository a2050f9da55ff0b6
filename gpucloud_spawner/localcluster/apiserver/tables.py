"""Tables: the form in which `kubectl get` asks for rows and columns that the server has made.

Here is the mechanics; which columns a kind has and what stands in them is in `printers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from .errors import APIError
from .printers import COLUMNS, Column
from .resources import Resource
from .store import Object, Record
from .watching import Render

_JSON_TYPES = frozenset({"application/json", "application/*", "*/*"})
_PARTIAL = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def wanted(request: web.BaseRequest) -> str | None:
    """How much of the object goes with each row ("None", "Metadata", "Object") where the client
    prefers a Table; None where it takes the objects themselves."""
    accept = request.headers.get("Accept", "")
    if not accept or accept == "application/json":
        return None
    for entry in accept.split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        if media not in _JSON_TYPES:
            continue
        given = dict(p.partition("=")[::2] for p in parameters)
        form = given.get("as")
        if form is None:
            return None
        if form == "Table" and given.get("g") == "meta.k8s.io" and given.get("v") == "v1":
            return request.query.get("includeObject", "Metadata")
    raise APIError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json, "
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        {},
    )


def _definitions(columns: Sequence[Column]) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns
    ]


def _row(resource: Resource, columns: Sequence[Column], record: Record, form: str) -> Object:
    obj = record.load()
    row: Object = {"cells": [column.cell(obj) for column in columns]}
    if form == "Object":
        row["object"] = {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
    elif form == "Metadata":
        row["object"] = {**_PARTIAL, "metadata": obj["metadata"]}
    return row


def encode(
    resource: Resource,
    records: Sequence[Record],
    metadata: Mapping[str, object],
    form: str,
    with_columns: bool = True,
) -> bytes:
    columns = COLUMNS[resource.plural]
    return orjson.dumps(
        {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": _definitions(columns) if with_columns else None,
            "rows": [_row(resource, columns, record, form) for record in records],
        }
    )


def renderer(resource: Resource, form: str) -> Render:
    """Renders watch events as Tables of one row; only the first names the columns."""
    first = True

    def render(kind: str, record: Record) -> bytes:
        nonlocal first
        metadata = {"resourceVersion": str(record.version)}
        table = encode(resource, [record], metadata, form, first)
        first = False
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), table)

    return render
