"""Decoding of request bodies against Kubernetes' field table, as Go decodes them into its structs:
unknown fields are collected, wrong types refused, quantities made canonical, empty lists, maps and
nulls left out. Rules beyond the shape (names, references, immutability) belong to `validation.py`.

The table (`schema.json.gz`) is written by tools/make_kubernetes_schema.py.
"""

from __future__ import annotations

import base64
import binascii
import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ..quantity import QuantityError, canonical

_RAW: dict[str, dict[str, Any]] = orjson.loads(
    gzip.decompress((Path(__file__).parent / "schema.json.gz").read_bytes())
)
TYPES: dict[str, dict[str, str]] = {
    name: {f: c if isinstance(c, str) else c[0] for f, c in fields.items()}
    for name, fields in _RAW.items()
}
MERGE_KEYS: dict[str, dict[str, str]] = {
    name: {f: c[1] for f, c in fields.items() if not isinstance(c, str)}
    for name, fields in _RAW.items()
}

_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
# Go writes these fields even when nobody set them (no `omitempty`), and clients index them.
ALWAYS: dict[str, dict[str, Any]] = {
    "Container": {"resources": {}},
    "Endpoint": {"conditions": {}},
    "ContainerStatus": {
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    },
    "PodCondition": {"lastProbeTime": None, "lastTransitionTime": None},
    "NodeCondition": {"lastHeartbeatTime": None, "lastTransitionTime": None},
    "NodeStatus": {
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {name: "" for name in _NODE_INFO},
    },
    "Event": {
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
}
# Go points at these, so that "" is a value of its own: no class is not the default class.
_KEEPS_EMPTY = frozenset({"storageClassName"})

_DROP = object()
Decoder = Callable[[Any, "Unknown"], Any]
_GO_SCALARS = {"s": "string", "b": "bool", "i32": "int32", "i64": "int64", "f": "float64"}


class Unknown:
    """Set when a decoder met a field that it does not know."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = False


class SchemaError(ValueError):
    """The body does not have the shape of its kind."""


class _Mismatch(Exception):
    pass


def decode(kind: str, value: Any) -> tuple[Any, list[str]]:
    """The normalised object and the paths of its unknown fields, which are left out of it."""
    unknown = Unknown()
    try:
        decoded = _decoder(kind)(value, unknown)
    except (_Mismatch, QuantityError):
        raise SchemaError(_first_mismatch(kind, value)) from None
    return decoded, list(_unknown_fields(kind, value, "")) if unknown.seen else []


_decoders: dict[str, Decoder] = {}


def _decoder(code: str) -> Decoder:
    if code not in _decoders:
        _decoders[code] = _make_decoder(code)
    return _decoders[code]


def _make_decoder(code: str) -> Decoder:
    if code.startswith("[]"):
        return _list_decoder(code[2:])
    if code.startswith("{}"):
        return _map_decoder(code[2:])
    if code in TYPES:
        return _struct_decoder(code)
    return _SCALARS[code]


def _list_decoder(code: str) -> Decoder:
    item = None

    def decode_list(value: Any, unknown: Unknown) -> Any:
        nonlocal item
        if type(value) is not list:
            raise _Mismatch
        item = item or _decoder(code)
        return [item(v, unknown) for v in value] if value else _DROP

    return decode_list


def _map_decoder(code: str) -> Decoder:
    item = None
    zero = "0" if code == "q" else ""  # what Go makes of a null

    def decode_map(value: Any, unknown: Unknown) -> Any:
        nonlocal item
        if type(value) is not dict:
            raise _Mismatch
        item = item or _decoder(code)
        return {k: item(v, unknown) if v is not None else zero for k, v in value.items()} or _DROP

    return decode_map


def _struct_decoder(name: str) -> Decoder:
    fields: dict[str, Decoder] = {}
    codes = TYPES[name]
    always = ALWAYS.get(name)

    def decode_struct(value: Any, unknown: Unknown) -> Any:
        if type(value) is not dict:
            raise _Mismatch
        out = {}
        for key, given in value.items():
            field = fields.get(key)
            if field is None:
                code = codes.get(key)
                if code is None:
                    unknown.seen = True
                    continue
                field = fields[key] = _decoder(code)
            if given is None or (given == "" and key not in _KEEPS_EMPTY):
                continue
            decoded = field(given, unknown)
            if decoded is not _DROP:
                out[key] = decoded
        if always:
            for key, default in always.items():
                if key not in out:
                    out[key] = dict(default) if type(default) is dict else default
        return out

    return decode_struct


def _exactly(kind: type) -> Decoder:
    def check(value: Any, _unknown: Unknown) -> Any:
        if type(value) is not kind:
            raise _Mismatch
        return value

    return check


def _integer(bits: int) -> Decoder:
    limit = 1 << (bits - 1)

    def check(value: Any, _unknown: Unknown) -> Any:
        if type(value) is not int or not -limit <= value < limit:
            raise _Mismatch
        return value

    return check


def _number(value: Any, _unknown: Unknown) -> Any:
    if type(value) not in (int, float):
        raise _Mismatch
    return value


def _int_or_string(value: Any, _unknown: Unknown) -> Any:
    if type(value) not in (int, str):
        raise _Mismatch
    return value


def _quantity(value: Any, _unknown: Unknown) -> str:
    if type(value) not in (str, int, float):
        raise _Mismatch
    return canonical(str(value))


def _time(value: Any, _unknown: Unknown) -> str:
    """A moment in the form in which Kubernetes returns it: UTC, whole seconds."""
    if type(value) is str and len(value) == 20 and value[10::9] == "TZ":
        return value
    return _moment(value).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Any, _unknown: Unknown) -> str:
    return _moment(value).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise _Mismatch from None
    if moment.tzinfo is None:
        raise _Mismatch
    return moment.astimezone(UTC)


def _bytes(value: Any, _unknown: Unknown) -> str:
    if type(value) is not str:
        raise _Mismatch
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _Mismatch from None
    return value


_SCALARS: dict[str, Decoder] = {
    "s": _exactly(str),
    "b": _exactly(bool),
    "i32": _integer(32),
    "i64": _integer(64),
    "f": _number,
    "q": _quantity,
    "t": _time,
    "m": _micro_time,
    "x": _int_or_string,
    "y": _bytes,
    "o": lambda value, _unknown: value,
}


# The slow paths below run only for a body that is refused or warned about: they name the place.


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "number" if isinstance(value, int) else f"number {value}"


def _go_type(code: str) -> str:
    if code.startswith("[]"):
        return "[]" + _go_type(code[2:])
    if code.startswith("{}"):
        return "map[string]" + _go_type(code[2:])
    return _GO_SCALARS.get(code) or (f"v1.{code}" if code in TYPES else "string")


def _first_mismatch(kind: str, value: Any) -> str:
    if type(value) is not dict:
        return f"json: cannot unmarshal {_json_kind(value)} into Go value of type v1.{kind}"
    return next(_mismatches(kind, value, ""), "the body cannot be decoded")


def _mismatches(kind: str, value: dict[str, Any], path: str) -> Iterator[str]:
    for key, given in value.items():
        code = TYPES[kind].get(key)
        if code is not None and given is not None and given != "":
            yield from _field_mismatches(code, given, f"{path}.{key}" if path else key, kind)


def _field_mismatches(code: str, value: Any, path: str, owner: str) -> Iterator[str]:
    if code.startswith("[]") and isinstance(value, list):
        for item in value:
            yield from _field_mismatches(code[2:], item, path, owner)
    elif code.startswith("{}") and isinstance(value, dict):
        for item in value.values():
            yield from _field_mismatches(code[2:], item, path, owner)
    elif code in TYPES and isinstance(value, dict):
        yield from _mismatches(code, value, path)
    else:
        try:
            _decoder(code)(value, Unknown())
        except QuantityError as error:
            yield str(error)
        except _Mismatch:
            yield _mismatch_text(code, value, path, owner)


def _mismatch_text(code: str, value: Any, path: str, owner: str) -> str:
    if isinstance(value, str) and code in ("t", "m"):
        return f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse it'
    if isinstance(value, str) and code == "y":
        return "illegal base64 data at input byte 0"
    if code == "q":
        return str(QuantityError())
    return (
        f"json: cannot unmarshal {_json_kind(value)} into Go struct field {owner}.{path} "
        f"of type {_go_type(code)}"
    )


def _unknown_fields(code: str, value: Any, path: str) -> Iterator[str]:
    if code.startswith("[]") and isinstance(value, list):
        for i, item in enumerate(value):
            yield from _unknown_fields(code[2:], item, f"{path}[{i}]")
    elif code.startswith("{}") and isinstance(value, dict):
        for key, item in value.items():
            yield from _unknown_fields(code[2:], item, f"{path}.{key}")
    elif code in TYPES and isinstance(value, dict):
        for key, item in value.items():
            place = f"{path}.{key}" if path else key
            if key not in TYPES[code]:
                yield place
            else:
                yield from _unknown_fields(TYPES[code][key], item, place)
