"""A container's environment, command and arguments, as the pod spec asks for them.

$(VAR) expansion, fieldRef, resourceFieldRef, Secret and ConfigMap keys. Service variables
(enableServiceLinks) are not injected: nothing here needs them and they slow every shell down.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..quantity import parse
from .images import Image

Obj = dict[str, Any]
# Gets ("secrets" or "configmaps", name) of the pod's namespace; None if there is no such object.
Lookup = Callable[[str, str], Awaitable[Obj | None]]

_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")
_KEYED_FIELD = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
KINDS = {"secrets": "Secret", "configmaps": "ConfigMap"}


class ConfigError(Exception):
    """What the pod refers to does not exist (yet): CreateContainerConfigError."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """$(VAR) replaced where VAR is set, $$ as an escaped $; all else stays as it is."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def field_value(pod: Obj, path: str) -> str:
    """The downward API: one field of the pod as text."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if keyed := _KEYED_FIELD.fullmatch(path):
        return str((meta.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = sorted((meta.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f"{key}={_quoted(value)}" for key, value in items)
    values: dict[str, Any] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": ",".join(ip["ip"] for ip in status.get("hostIPs") or []),
        "status.podIP": status.get("podIP"),
        "status.podIPs": ",".join(ip["ip"] for ip in status.get("podIPs") or []),
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path] or "")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource_value(pod: Obj, container: Obj, ref: Obj, allocatable: Mapping[str, str]) -> str:
    """resourceFieldRef; a limit that is not set means all that the node has, as in Kubernetes."""
    if name := ref.get("containerName"):
        container = next(c for c in pod["spec"]["containers"] if c["name"] == name)
    kind, _, resource = ref["resource"].partition(".")
    resources = container.get("resources") or {}
    text = (resources.get(kind) or {}).get(resource)
    if text is None and kind == "requests":
        text = (resources.get("limits") or {}).get(resource)
    if text is None:
        text = allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = parse(str(ref.get("divisor") or "1")) or parse("1")
    return str(-((-parse(str(text))) // divisor))  # rounded up


def _decoded(resource: str, obj: Obj) -> dict[str, str]:
    data = obj.get("data") or {}
    if resource == "secrets":
        return {k: base64.b64decode(v).decode(errors="surrogateescape") for k, v in data.items()}
    return dict(data)


async def _from_source(resource: str, ref: Obj, lookup: Lookup) -> dict[str, str]:
    obj = await lookup(resource, ref["name"])
    if obj is None:
        if ref.get("optional"):
            return {}
        raise ConfigError(f'{KINDS[resource].lower()} "{ref["name"]}" not found')
    return _decoded(resource, obj)


async def _key_value(pod: Obj, resource: str, ref: Obj, lookup: Lookup) -> str | None:
    values = await _from_source(resource, ref, lookup)
    if ref["key"] in values:
        return values[ref["key"]]
    if ref.get("optional"):
        return None
    where = f"{KINDS[resource]} {pod['metadata']['namespace']}/{ref['name']}"
    raise ConfigError(f"couldn't find key {ref['key']} in {where}")


async def container_env(
    pod: Obj,
    container: Obj,
    image: Image,
    home: str,
    lookup: Lookup,
    allocatable: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of a container: the image's, the runtime's, then the pod's."""
    hostname = pod["spec"].get("hostname") or pod["metadata"]["name"][:63]
    env = {**image.env, "HOSTNAME": hostname, "HOME": home}
    pods: dict[str, str] = {}  # only these are seen by $(VAR)
    for source in container.get("envFrom") or []:
        for key, resource in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if ref := source.get(key):
                values = await _from_source(resource, ref, lookup)
                prefix = source.get("prefix") or ""
                pods.update({prefix + name: value for name, value in values.items()})
    for item in container.get("env") or []:
        value = await _env_value(pod, container, item, pods, lookup, allocatable)
        if value is not None:
            pods[item["name"]] = value
    return env | pods


async def _env_value(
    pod: Obj,
    container: Obj,
    item: Obj,
    env: Mapping[str, str],
    lookup: Lookup,
    allocatable: Mapping[str, str],
) -> str | None:
    source = item.get("valueFrom")
    if not source:
        return expand(item.get("value") or "", env)
    if ref := source.get("fieldRef"):
        return field_value(pod, ref["fieldPath"])
    if ref := source.get("resourceFieldRef"):
        return resource_value(pod, container, ref, allocatable)
    if ref := source.get("secretKeyRef"):
        return await _key_value(pod, "secrets", ref, lookup)
    if ref := source.get("configMapKeyRef"):
        return await _key_value(pod, "configmaps", ref, lookup)
    raise ConfigError(f"env {item['name']}: unsupported valueFrom {', '.join(source)}")


def container_argv(container: Obj, image: Image, env: Mapping[str, str]) -> list[str]:
    """Command and arguments with $(VAR) expanded; the image's own command if the pod has none.

    The known images have no separate entrypoint: as with docker's CMD, args alone replace it.
    """
    command = container.get("command") or []
    args = container.get("args") or []
    if not command and not args:
        return list(image.command)
    return [expand(text, env) for text in (*command, *args)]
