"""What a request asks for: the resource its path names, its query options and its body.

Pure reading: nothing here touches stored objects.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import orjson
import yaml
from aiohttp import web

from .errors import (
    APIError,
    bad_request,
    not_implemented,
    too_large,
    unknown_resource,
    unsupported_media_type,
)
from .resources import BY_PLURAL, OPTIONAL, UNIMPLEMENTED, UNIMPLEMENTED_SUBRESOURCES, Resource
from .schema import SchemaError, decode
from .store import Object

BODY_LIMIT = 3 * 1024 * 1024
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})
_VERSION = re.compile("[0-9]{1,18}")
_INTEGER = re.compile("[+-]?[0-9]{1,18}")
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


@dataclass(frozen=True)
class Target:
    """The resource that a path names."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str, method: str = "GET") -> Target:
    parts = path.strip("/").split("/")
    group, version, rest = _group(parts)
    namespace = ""
    if rest and rest[0] == "watch":
        raise not_implemented("the deprecated watch/ paths (use ?watch=1)")
    is_namespace = len(rest) == 3 and rest[2] in ("status", "finalize")
    if len(rest) >= 3 and rest[0] == "namespaces" and not is_namespace:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "", "")[:3]
    resource = BY_PLURAL.get((group, version, plural))
    if resource is None:
        raise _not_served(group, version, plural, method)
    if (namespace and not resource.namespaced) or (len(rest) > 3 and subresource != "proxy"):
        raise unknown_resource()
    if subresource and subresource not in resource.subresources:
        if subresource in UNIMPLEMENTED_SUBRESOURCES.get(plural, ()):
            raise not_implemented(f"the subresource {plural}/{subresource}")
        raise unknown_resource()
    return Target(resource, namespace, name, subresource)


def _group(parts: list[str]) -> tuple[str, str, list[str]]:
    if parts[0] == "api" and len(parts) > 2:
        return "", parts[1], parts[2:]
    if parts[0] == "apis" and len(parts) > 3:
        return parts[1], parts[2], parts[3:]
    raise unknown_resource()


def _not_served(group: str, version: str, plural: str, method: str) -> APIError:
    if plural in OPTIONAL and method == "GET":
        return unknown_resource()
    if plural in UNIMPLEMENTED.get((group, version), ()):
        api = f"{group}/{version}" if group else version
        return not_implemented(f"the resource {plural} of {api}")
    return unknown_resource()


def boolean(request: web.BaseRequest, name: str) -> bool:
    """A query flag as Go's strconv.ParseBool reads it."""
    value = request.query.get(name, "")
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise bad_request(
        f'invalid value for {name}: strconv.ParseBool: parsing "{value}": invalid syntax'
    )


def integer(request: web.BaseRequest, name: str) -> int | None:
    value = request.query.get(name, "")
    if not value:
        return None
    if _INTEGER.fullmatch(value):
        return int(value)
    raise bad_request(
        f'invalid value for {name}: strconv.ParseInt: parsing "{value[:64]}": invalid syntax'
    )


def resource_version(request: web.BaseRequest) -> int | None:
    """The asked version; None where none (or "") was given."""
    value = request.query.get("resourceVersion", "")
    if value and not _VERSION.fullmatch(value):
        raise bad_request(f'Invalid value: "{value[:64]}": must be a non-negative integer')
    return int(value) if value else None


def dry_run(request: web.BaseRequest, options: dict[str, Any] | None = None) -> bool:
    asked = request.query.getall("dryRun", []) or (options or {}).get("dryRun") or []
    for value in asked:
        if value not in ("All", ""):
            raise bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return "All" in asked


def content_type(request: web.BaseRequest) -> str:
    header = request.headers.get("Content-Type", "")
    return header.partition(";")[0].strip().lower() or "application/json"


async def read_body(request: web.BaseRequest) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(BODY_LIMIT) from None


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


class _YamlLoader(yaml.SafeLoader):
    """YAML as far as it is another way to write JSON: without times, and without aliases, which
    can make a short text expand to more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases are not accepted", mark)
        return super().compose_node(parent, index)


_YamlLoader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(body: bytes) -> Any:
    try:
        data = yaml.load(body, _YamlLoader)
        return orjson.loads(orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS))
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from None


async def read_object(request: web.BaseRequest) -> Any:
    """The body as plain data; JSON or YAML."""
    body = await read_body(request)
    kind = content_type(request)
    if kind == "application/json":
        return parse_json(body)
    if kind in _YAML:
        # In a thread: it takes seconds for the largest body.
        return await asyncio.to_thread(parse_yaml, body)
    refused = unsupported_media_type()
    refused.message = (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml"
    )
    raise refused


def decode_object(
    kind: str, api_version: str, data: Any, validation: str
) -> tuple[Object, list[str]]:
    """The object in the server's form and the warnings for the client."""
    if not isinstance(data, dict):
        raise bad_request(f"the body must be a JSON object of kind {kind}")
    if data.get("apiVersion", api_version) != api_version:
        raise bad_request(
            f"the API version in the data ({data['apiVersion']}) does not match the expected API "
            f"version ({api_version})"
        )
    if data.get("kind", kind) != kind:
        raise bad_request(
            f"the kind in the data ({data['kind']}) does not match the expected kind ({kind})"
        )
    version = api_version.rpartition("/")[2]
    prefix = f'{kind} in version "{version}" cannot be handled as a {kind}: '
    try:
        obj, unknown = decode(kind, data)
    except SchemaError as error:
        raise bad_request(prefix + str(error)) from None
    warnings = [f'unknown field "{path}"' for path in unknown]
    if warnings and validation == "Strict":
        raise bad_request(f"{prefix}strict decoding error: {', '.join(warnings)}")
    obj.pop("kind", None)
    obj.pop("apiVersion", None)
    return obj, [] if validation == "Ignore" else warnings


def field_validation(request: web.BaseRequest) -> str:
    value = request.query.get("fieldValidation", "") or "Warn"
    if value not in ("Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{value}": supported values: "Ignore", '
            '"Strict", "Warn"'
        )
    return value
