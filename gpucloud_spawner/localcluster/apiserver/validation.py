"""Rules that several kinds share: names, labels, annotations, quantities, with Kubernetes' wording.

Rules of one kind live beside that kind (`pods.py`, `volumes.py`, `strategy.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..quantity import parse
from .errors import Cause, forbidden_field, invalid_value, not_supported, required
from .store import Object

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_SERVICE = "[a-z]([-a-z0-9]*[a-z0-9])?"

_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_LABEL_RE = re.compile(_LABEL)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_VALUE_RE = re.compile(_VALUE)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)
_SERVICE_RE = re.compile(_SERVICE)
ENV_RE = re.compile("[-._a-zA-Z][-._a-zA-Z0-9]*|[ -<>-~]+")

SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_SUBDOMAIN}')"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
SERVICE_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    f"regex used for validation is '{_SERVICE}')"
)
QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    f"validation is '{_QUALIFIED}')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    f"or '12345', regex used for validation is '{_VALUE}')"
)
CONFIG_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',"
    f"  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_CONFIG_KEY}')"
)
ENV_RULE = (
    "a valid environment variable name must consist only of printable ASCII characters other than "
    "'='"
)
_RESERVED = "must not start with '..'"
TAINT_EFFECTS = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})
ANNOTATIONS_LIMIT = 256 * 1024
DATA_LIMIT = 1024 * 1024


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def subdomain(field: str, value: str) -> Iterator[Cause]:
    if len(value) > 253:
        yield invalid_value(field, value, _too_long(253))
    if not _SUBDOMAIN_RE.fullmatch(value):
        yield invalid_value(field, value, SUBDOMAIN_RULE)


def dns_label(field: str, value: str) -> Iterator[Cause]:
    if len(value) > 63:
        yield invalid_value(field, value, _too_long(63))
    if not _LABEL_RE.fullmatch(value):
        yield invalid_value(field, value, LABEL_RULE)


def service_name(field: str, value: str) -> Iterator[Cause]:
    if len(value) > 63:
        yield invalid_value(field, value, _too_long(63))
    if not _SERVICE_RE.fullmatch(value):
        yield invalid_value(field, value, SERVICE_RULE)


def config_key(field: str, key: str) -> Iterator[Cause]:
    if len(key) > 253:
        yield invalid_value(field, key, _too_long(253))
    if not _CONFIG_KEY_RE.fullmatch(key):
        yield invalid_value(field, key, CONFIG_KEY_RULE)
    elif key in (".", ".."):
        yield invalid_value(field, key, f"must not be '{key}'")
    elif key.startswith(".."):
        yield invalid_value(field, key, _RESERVED)


def file_path(field: str, path: str) -> Iterator[Cause]:
    """Where in a volume one of its files lies; names that begin with two dots are the kubelet's."""
    if not path:
        yield required(field)
    if path.startswith("/"):
        yield invalid_value(field, path, "must be a relative path")
    if ".." in path.split("/"):
        yield invalid_value(field, path, "must not contain '..'")
    elif path.startswith(".."):
        yield invalid_value(field, path, _RESERVED)


def qualified_name(field: str, value: str) -> Iterator[Cause]:
    prefix, slash, name = value.rpartition("/")
    if slash and not _SUBDOMAIN_RE.fullmatch(prefix):
        yield invalid_value(field, value, f"prefix part {SUBDOMAIN_RULE}")
    if len(name) > 63:
        yield invalid_value(field, value, f"name part {_too_long(63)}")
    if not _QUALIFIED_RE.fullmatch(name):
        yield invalid_value(field, value, QUALIFIED_RULE)


def labels(field: str, given: dict[str, str]) -> Iterator[Cause]:
    for key, value in given.items():
        yield from qualified_name(field, key)
        if len(value) > 63:
            yield invalid_value(field, value, _too_long(63))
        if not _VALUE_RE.fullmatch(value):
            yield invalid_value(field, value, VALUE_RULE)


def metadata(obj: Object) -> Iterator[Cause]:
    """Everything about metadata but the name, whose rule differs by kind."""
    meta = obj["metadata"]
    yield from labels("metadata.labels", meta.get("labels", {}))
    size = 0
    for key, value in meta.get("annotations", {}).items():
        yield from qualified_name("metadata.annotations", key.lower())
        size += len(key) + len(value)
    if size > ANNOTATIONS_LIMIT:
        yield Cause(
            "FieldValueTooLong",
            "metadata.annotations",
            f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes",
        )
    for i, owner in enumerate(meta.get("ownerReferences", [])):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield required(f"metadata.ownerReferences[{i}].{field}", "must not be empty")
    for finalizer in meta.get("finalizers", []):
        yield from qualified_name("metadata.finalizers", finalizer)


def no_new_finalizers(new: Object, old: Object) -> Iterator[Cause]:
    """An object that is being deleted takes no further finalizer."""
    before = old["metadata"].get("finalizers", [])
    added = [f for f in new["metadata"].get("finalizers", []) if f not in before]
    if old["metadata"].get("deletionTimestamp") and added:
        yield forbidden_field(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{', '.join(f'{chr(34)}{f}{chr(34)}' for f in added)}}}",
        )


def one_of(field: str, value: Any, allowed: frozenset[str]) -> Iterator[Cause]:
    if not value:
        yield required(field)
    elif value not in allowed:
        yield not_supported(field, value, allowed)


def not_negative(field: str, quantity: str) -> Iterator[Cause]:
    if parse(quantity) < 0:
        yield invalid_value(field, quantity, "must be greater than or equal to 0")


def port(field: str, value: Any) -> Iterator[Cause]:
    if isinstance(value, int) and not 0 < value < 65536:
        yield invalid_value(field, value, "must be between 1 and 65535, inclusive")


def data_size(field: str, sizes: Iterator[int]) -> Iterator[Cause]:
    if sum(sizes) > DATA_LIMIT:
        yield Cause(
            "FieldValueTooLong", field, f"Too long: may not be more than {DATA_LIMIT} bytes"
        )
