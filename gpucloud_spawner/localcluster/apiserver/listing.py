"""Lists: consistent pages, resourceVersion semantics, concatenated from the stored bytes."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from dataclasses import dataclass

import orjson

from .errors import APIError, bad_request, expired, version_too_large
from .resources import Resource
from .selectors import Selector
from .store import Key, Record, Store

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_ANY = -1  # in a token: go on with whatever is there now


@dataclass(frozen=True)
class ListOptions:
    selector: Selector
    limit: int = 0
    token: str = ""
    version: int | None = None
    match: str = ""


@dataclass(frozen=True)
class Page:
    records: list[Record]
    version: int
    token: str = ""
    remaining: int | None = None

    @property
    def metadata(self) -> dict[str, object]:
        meta: dict[str, object] = {"resourceVersion": str(self.version)}
        if self.token:
            meta["continue"] = self.token
        if self.remaining is not None:
            meta["remainingItemCount"] = self.remaining
        return meta


def read_page(store: Store, resource: Resource, namespace: str, options: ListOptions) -> Page:
    _check_options(store, options)
    after: Key | None = None
    version = store.version
    changed: dict[Key, Record | None] = {}
    if options.token:
        version, after = _decode_token(options.token)
        if version == _ANY:
            version = store.version
        changed = _undo(store, resource, version, options.token)
    elif options.match == "Exact" and options.version is not None:
        version = options.version
        changed = _undo(store, resource, version, "")
    return _collect(store, resource, namespace, options, version, after, changed)


def _check_options(store: Store, options: ListOptions) -> None:
    if options.match not in ("", "Exact", "NotOlderThan"):
        raise bad_request(
            f'resourceVersionMatch: Unsupported value: "{options.match}": supported values: '
            '"Exact", "NotOlderThan"'
        )
    if options.match and options.token:
        raise bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is "
            "provided"
        )
    if options.match and options.version is None:
        raise bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless "
            "resourceVersion is provided"
        )
    if options.match == "Exact" and options.version == 0:
        raise bad_request(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for '
            'resourceVersion "0"'
        )
    if options.token and options.version:
        raise bad_request("specifying resource version is not allowed when using continue")
    if options.version is not None and options.version > store.version:
        raise version_too_large(options.version, store.version)


def _undo(store: Store, resource: Resource, version: int, token: str) -> dict[Key, Record | None]:
    """How the objects that changed since a version looked then (None: not there)."""
    try:
        events = store.since(resource, version)
    except APIError:
        if not token:
            raise
        error = expired(_CONTINUE_EXPIRED)
        _version, after = _decode_token(token)
        error.metadata = {"continue": _encode_token(_ANY, after)}
        raise error from None
    return {event.record.key: event.previous for event in reversed(events)}


def _collect(
    store: Store,
    resource: Resource,
    namespace: str,
    options: ListOptions,
    version: int,
    after: Key | None,
    changed: dict[Key, Record | None],
) -> Page:
    keys = store.keys(resource, namespace, after)
    if changed:
        was = {k for k, r in changed.items() if r is not None and _inside(k, namespace, after)}
        keys = sorted(was.union(keys))
    records = store.table(resource).records
    selector = options.selector
    found: list[Record] = []
    for key in keys:
        record = changed[key] if key in changed else records[key]
        if record is None or not (selector.everything or selector.matches(record)):
            continue
        if options.limit and len(found) == options.limit:
            last = found[-1].key
            rest = len(keys) - bisect_right(keys, last)
            gone = sum(1 for k in keys if changed.get(k, record) is None and k > last)
            remaining = rest - gone if selector.everything else None
            return Page(found, version, _encode_token(version, last), remaining)
        found.append(record)
    return Page(found, version)


def _inside(key: Key, namespace: str, after: Key | None) -> bool:
    return (not namespace or key[0] == namespace) and (after is None or key > after)


def _encode_token(version: int, after: Key) -> str:
    text = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": after})
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, Key]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = data["start"]
        return int(data["rv"]), (str(namespace), str(name))
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError):
        raise bad_request("continue key is not valid: the token cannot be read") from None


def encode_page(resource: Resource, page: Page) -> bytes:
    head = (
        f'{{"kind":"{resource.kind}List","apiVersion":"{resource.api_version}","metadata":'.encode()
    )
    items = b",".join([record.body for record in page.records])
    return b"".join([head, orjson.dumps(page.metadata), b',"items":[', items, b"]}"])
