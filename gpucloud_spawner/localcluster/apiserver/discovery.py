"""Discovery: the documents by which kubectl and clients learn what this server serves."""

from __future__ import annotations

from typing import Any

import orjson

from .errors import unknown_resource
from .resources import RESOURCES, Resource

VERSION: dict[str, str] = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2+gpucloud",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "gpucloud localcluster",
    "platform": "linux/amd64",
}
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCE_VERBS = {
    "status": ("get", "patch", "update"),
    "log": ("get",),
    "binding": ("create",),
    "exec": ("create", "get"),
    "proxy": ("get",),
}
_SUBRESOURCE_KINDS = {"binding": "Binding", "exec": "PodExecOptions", "proxy": "NodeProxyOptions"}
_GROUPS = tuple(dict.fromkeys((r.group, r.version) for r in RESOURCES if r.group))


def document(path: str, address: str) -> bytes:
    """The discovery document of a path without its trailing slash."""
    parts = path.strip("/").split("/")
    if parts == ["api"]:
        return orjson.dumps(_core_versions(address))
    if parts == ["apis"]:
        groups = [_group(g, v) for g, v in _GROUPS]
        return orjson.dumps({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    if parts == ["api", "v1"]:
        return orjson.dumps(_resource_list("", "v1"))
    if parts[0] == "apis" and len(parts) == 2:
        for group, version in _GROUPS:
            if group == parts[1]:
                return orjson.dumps(
                    {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
                )
    if parts[0] == "apis" and len(parts) == 3 and (parts[1], parts[2]) in _GROUPS:
        return orjson.dumps(_resource_list(parts[1], parts[2]))
    raise unknown_resource()


def _core_versions(address: str) -> dict[str, Any]:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(group: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}


def _resource_list(group: str, version: str) -> dict[str, Any]:
    entries = [
        e for r in RESOURCES if (r.group, r.version) == (group, version) for e in _entries(r)
    ]
    api_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": sorted(entries, key=lambda e: e["name"]),
    }


def _entries(resource: Resource) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(_VERBS),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entries = [entry]
    for name in resource.subresources:
        entries.append(
            {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": _SUBRESOURCE_KINDS.get(name, resource.kind),
                "verbs": list(_SUBRESOURCE_VERBS.get(name, ("update",))),
            }
        )
    return entries


def openapi_index() -> bytes:
    paths = {
        path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={VERSION['gitVersion']}"}
        for path in _openapi_paths()
    }
    return orjson.dumps({"paths": paths})


def _openapi_paths() -> dict[str, tuple[str, str]]:
    return {"api/v1": ("", "v1"), **{f"apis/{g}/{v}": (g, v) for g, v in _GROUPS}}


def openapi(path: str) -> bytes:
    """As much OpenAPI as kubectl needs: that PATCH takes fieldValidation, so that the server
    validates. Schemas are not published; kubectl has its own of these kinds."""
    found = _openapi_paths().get(path)
    if found is None:
        raise unknown_resource()
    paths = {
        f"/{path}/{r.plural}/{{name}}": {"patch": _patch_operation(r)}
        for r in RESOURCES
        if (r.group, r.version) == found
    }
    info = {"title": "gpucloud local cluster", "version": VERSION["gitVersion"]}
    return orjson.dumps({"openapi": "3.0.0", "info": info, "paths": paths})


def _patch_operation(resource: Resource) -> dict[str, Any]:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldValidation", "fieldManager")
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind,
    }
