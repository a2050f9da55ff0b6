"""The three patch formats: RFC 7386 merge, RFC 6902 JSON patch, and Kubernetes' strategic merge, in
which the lists of known fields are merged by a key instead of replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonpatch
import jsonpointer
import orjson

from .errors import APIError, bad_request, too_large, unsupported_media_type
from .schema import MERGE_KEYS, TYPES
from .store import Object

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")

# Kubernetes' own limits.
OPERATIONS_LIMIT = 10_000
COPIED_LIMIT = 3 * 1024 * 1024

_DIRECTIVE = "$patch"
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"


def apply(content_type: str, kind: str, obj: Object, patch: Any) -> Object:
    """The patched copy of an object."""
    if content_type == JSON:
        return _json_patch(obj, patch)
    patcher: dict[str, Callable[[], Any]] = {
        MERGE: lambda: _merge(obj, patch),
        STRATEGIC: lambda: _strategic(obj, patch, kind),
    }
    if content_type not in patcher:
        raise unsupported_media_type()
    if not isinstance(patch, dict):
        raise bad_request("the patch must be a JSON object")
    try:
        return patcher[content_type]()
    except RecursionError:
        raise bad_request("the patch is nested too deeply") from None
    except (TypeError, AttributeError) as error:  # directives and list items of a wrong type
        raise bad_request(f"unable to apply the patch: {error}") from error


def _json_patch(obj: Object, operations: Any) -> Object:
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(operations) > OPERATIONS_LIMIT:
        raise too_large(OPERATIONS_LIMIT)
    copied = 0
    try:
        for operation in operations:
            before = len(orjson.dumps(obj)) if _copies(operation) else 0
            obj = jsonpatch.apply_patch(obj, [operation], in_place=True)
            copied += len(orjson.dumps(obj)) - before if before else 0
            if copied > COPIED_LIMIT:  # each copy can double the object
                raise too_large(COPIED_LIMIT)
        return obj
    except (jsonpatch.JsonPatchTestFailed, jsonpatch.JsonPatchConflict) as error:
        text = f"the server rejected our request due to an error in our request: {error}"
        raise APIError(422, "Invalid", text, {}) from error
    except (jsonpatch.InvalidJsonPatch, jsonpointer.JsonPointerException, TypeError) as error:
        raise bad_request(str(error)) from error


def _copies(operation: Any) -> bool:
    return isinstance(operation, dict) and operation.get("op") == "copy"


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merge(out.get(key), value)
    return out


def _strategic(target: Any, patch: dict[str, Any], kind: str) -> dict[str, Any]:
    """Merge a patch into an object of a schema type (`kind`; "" where the type is not known)."""
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown patch directive: {directive}")
    out = dict(target) if isinstance(target, dict) else {}
    if _RETAIN in patch:
        out = {k: v for k, v in out.items() if k in patch[_RETAIN]}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            field = key[len(_DELETE) :]
            out[field] = [v for v in out.get(field, []) if v not in value]
        elif key in (_DIRECTIVE, _RETAIN) or key.startswith(_ORDER):
            continue
        elif value is None:
            out.pop(key, None)
        else:
            out[key] = _field(out.get(key), value, kind, key, patch.get(_ORDER + key))
    for key, order in patch.items():
        field = key.removeprefix(_ORDER)
        if field != key and field not in patch and field in out:
            out[field] = _field(out[field], [], kind, field, order)
    return out


def _field(target: Any, value: Any, kind: str, key: str, order: Any) -> Any:
    code = TYPES.get(kind, {}).get(key, "")
    if isinstance(value, dict):
        if code.startswith("{}"):
            return _merge(target, value)
        return _strategic(target, value, code if code in TYPES else "")
    merge_key = MERGE_KEYS.get(kind, {}).get(key)
    if not isinstance(value, list) or merge_key is None:
        return value
    before = target or []
    if merge_key:
        if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in value):
            return [item for item in value if item.get(_DIRECTIVE) != "replace"]
        merged = _merge_list(before, value, merge_key, code[2:])
    else:
        merged = [*before, *(v for v in value if v not in before)]
    return _ordered(merged, before, value if order is None else order, merge_key)


def _merge_list(
    target: list[Any], patch: list[Any], merge_key: str, kind: str
) -> list[dict[str, Any]]:
    out = list(target)
    for item in patch:
        if not isinstance(item, dict) or merge_key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {merge_key}")
        places = [i for i, old in enumerate(out) if old.get(merge_key) == item[merge_key]]
        if item.get(_DIRECTIVE) == "delete":
            out = [old for i, old in enumerate(out) if i not in places]
        elif places:
            out[places[0]] = _strategic(out[places[0]], item, kind)
        else:
            out.append({k: v for k, v in item.items() if k != _DIRECTIVE})
    return out


def _ordered(merged: list[Any], server: list[Any], client: list[Any], merge_key: str) -> list[Any]:
    """Kubernetes' order of a merged list: the client's items in the client's order, the others in
    the server's, and a client's item before another one unless the server had them the other way
    round."""

    def name(item: Any) -> Any:
        return item.get(merge_key) if merge_key and isinstance(item, dict) else item

    asked = {name(item): i for i, item in enumerate(client)}
    known = {name(item): i for i, item in enumerate(server)}
    theirs = sorted((m for m in merged if name(m) in asked), key=lambda m: asked[name(m)])
    others = [m for m in merged if name(m) not in asked]
    out: list[Any] = []
    while theirs and others:
        left, right = known.get(name(others[0])), known.get(name(theirs[0]))
        first = others if left is not None and right is not None and left < right else theirs
        out.append(first.pop(0))
    return [*out, *theirs, *others]
