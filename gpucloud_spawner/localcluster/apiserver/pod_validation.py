"""What Kubernetes refuses in a pod's spec, in its words.

Only what the parts of this cluster rely on or what people get wrong: volumes and their paths,
containers, environment, probes, resources, node selection. Rules of an update are in `pods`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..quantity import parse
from ..scheduling import is_extended
from . import validation as check
from .errors import (
    Cause,
    duplicate,
    field_not_found,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

_RESTART = frozenset({"Always", "OnFailure", "Never"})
_DNS = frozenset({"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"})
_PULL = frozenset({"Always", "IfNotPresent", "Never"})
_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_PROBE_NUMBERS = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)
_MAX_DEADLINE = 2**31 - 1


def validate(spec: dict[str, Any]) -> Iterator[Cause]:
    yield from _validate_volumes(spec)
    names: set[str] = set()
    volumes = {v.get("name") for v in spec.get("volumes", [])}
    if not spec.get("containers"):
        yield required("spec.containers")
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(kind, [])):
            field = f"spec.{kind}[{i}]"
            yield from _validate_container(field, container, names, volumes)
    yield from check.one_of("spec.restartPolicy", spec.get("restartPolicy"), _RESTART)
    yield from check.one_of("spec.dnsPolicy", spec.get("dnsPolicy"), _DNS)
    if spec["terminationGracePeriodSeconds"] < 0:
        yield invalid_value(
            "spec.terminationGracePeriodSeconds",
            spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        )
    yield from check.labels("spec.nodeSelector", spec.get("nodeSelector", {}))
    if "hostname" in spec:
        yield from check.dns_label("spec.hostname", spec["hostname"])
    if "subdomain" in spec:
        yield from check.dns_label("spec.subdomain", spec["subdomain"])
    yield from _validate_tolerations(spec)
    yield from _validate_placement(spec)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 0 < deadline <= _MAX_DEADLINE:
        why = f"must be between 1 and {_MAX_DEADLINE}, inclusive"
        yield invalid_value("spec.activeDeadlineSeconds", deadline, why)


def _validate_volumes(spec: dict[str, Any]) -> Iterator[Cause]:
    seen: set[str] = set()
    for i, volume in enumerate(spec.get("volumes", [])):
        field = f"spec.volumes[{i}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{field}.name")
        else:
            yield from check.dns_label(f"{field}.name", name)
        if name in seen:
            yield duplicate(f"{field}.name", name)
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            yield forbidden_field(f"{field}.{extra}", "may not specify more than 1 volume type")
        claim = volume.get("persistentVolumeClaim")
        if claim is not None and not claim.get("claimName"):
            yield required(f"{field}.persistentVolumeClaim.claimName")
        yield from _validate_files(field, volume, "secretName")
        for k, source in enumerate(volume.get("projected", {}).get("sources", [])):
            yield from _validate_files(f"{field}.projected.sources[{k}]", source, "name")


def _validate_files(field: str, source: dict[str, Any], secret_name: str) -> Iterator[Cause]:
    """A volume of files made from other objects, or one source of a projected volume."""
    for kind, name in (("secret", secret_name), ("configMap", "name")):
        if kind not in source:
            continue
        if not source[kind].get(name):
            yield required(f"{field}.{kind}.{name}")
        for i, item in enumerate(source[kind].get("items", [])):
            place = f"{field}.{kind}.items[{i}]"
            if not item.get("key"):
                yield required(f"{place}.key")
            yield from check.file_path(f"{place}.path", item.get("path", ""))
    for i, item in enumerate(source.get("downwardAPI", {}).get("items", [])):
        place = f"{field}.downwardAPI.items[{i}]"
        yield from check.file_path(f"{place}.path", item.get("path", ""))
        if not item.get("fieldRef", {}).get("fieldPath") and "resourceFieldRef" not in item:
            yield required(f"{place}.fieldRef")


def _validate_container(
    field: str, container: dict[str, Any], names: set[str], volumes: set[Any]
) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    else:
        yield from check.dns_label(f"{field}.name", name)
    if name in names:
        yield duplicate(f"{field}.name", name)
    names.add(name)
    if not container.get("image", "").strip():
        yield required(f"{field}.image")
    yield from check.one_of(f"{field}.imagePullPolicy", container.get("imagePullPolicy"), _PULL)
    for i, env in enumerate(container.get("env", [])):
        yield from _validate_env(f"{field}.env[{i}]", env)
    for i, source in enumerate(container.get("envFrom", [])):
        prefix = source.get("prefix")
        if prefix and not check.ENV_RE.fullmatch(prefix):
            yield invalid_value(f"{field}.envFrom[{i}].prefix", prefix, check.ENV_RULE)
    for i, port in enumerate(container.get("ports", [])):
        if "containerPort" not in port:
            yield required(f"{field}.ports[{i}].containerPort")
        yield from check.port(f"{field}.ports[{i}].containerPort", port.get("containerPort"))
    yield from _validate_mounts(field, container, volumes)
    yield from _validate_resources(f"{field}.resources", container["resources"])
    for kind in _PROBES:
        if kind in container:
            yield from _validate_probe(f"{field}.{kind}", container[kind])
    for kind, hook in container.get("lifecycle", {}).items():
        if kind in ("postStart", "preStop"):
            yield from _validate_handler(f"{field}.lifecycle.{kind}", hook)


def _validate_probe(field: str, probe: dict[str, Any]) -> Iterator[Cause]:
    yield from _validate_handler(field, probe)
    for name in _PROBE_NUMBERS:
        if probe.get(name, 0) < 0:
            why = "must be greater than or equal to 0"
            yield invalid_value(f"{field}.{name}", probe[name], why)


def _validate_handler(field: str, action: dict[str, Any]) -> Iterator[Cause]:
    given = [name for name in _HANDLERS if name in action]
    if not given:
        yield required(field, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden_field(f"{field}.{extra}", "may not specify more than 1 handler type")
    if "exec" in action and not action["exec"].get("command"):
        yield required(f"{field}.exec.command")
    for name in ("httpGet", "tcpSocket"):
        if name in action:
            port = action[name].get("port")
            if port is None:
                yield required(f"{field}.{name}.port")
            yield from check.port(f"{field}.{name}.port", port)


def _validate_env(field: str, env: dict[str, Any]) -> Iterator[Cause]:
    name = env.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif not check.ENV_RE.fullmatch(name):
        yield invalid_value(f"{field}.name", name, check.ENV_RULE)
    if "valueFrom" not in env:
        return
    if env.get("value"):
        yield invalid_value(
            f"{field}.valueFrom", "", "may not be specified when `value` is not empty"
        )
    if not env["valueFrom"]:
        yield invalid_value(
            f"{field}.valueFrom",
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or "
            "`secretKeyRef`",
        )


def _validate_mounts(field: str, container: dict[str, Any], volumes: set[Any]) -> Iterator[Cause]:
    paths: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts", [])):
        place = f"{field}.volumeMounts[{i}]"
        if not mount.get("name"):
            yield required(f"{place}.name")
        elif mount["name"] not in volumes:
            yield field_not_found(f"{place}.name", mount["name"])
        path = mount.get("mountPath", "")
        if not path:
            yield required(f"{place}.mountPath")
        if path in paths:
            yield invalid_value(f"{place}.mountPath", path, "must be unique")
        paths.add(path)
        if ".." in mount.get("subPath", "").split("/"):
            yield invalid_value(f"{place}.subPath", mount["subPath"], "must not contain '..'")


def _validate_resources(field: str, resources: dict[str, Any]) -> Iterator[Cause]:
    limits = resources.get("limits", {})
    for name, value in limits.items():
        yield from check.qualified_name(f"{field}.limits[{name}]", name)
        yield from check.not_negative(f"{field}.limits[{name}]", value)
    for name, value in resources.get("requests", {}).items():
        place = f"{field}.requests"
        yield from check.qualified_name(f"{place}[{name}]", name)
        yield from check.not_negative(f"{place}[{name}]", value)
        if is_extended(name):
            if parse(value).denominator != 1:
                yield invalid_value(f"{place}[{name}]", value, "must be an integer")
            if name not in limits:
                yield required(
                    f"{field}.limits[{name}]", "Limit must be set for non overcommitable resources"
                )
            elif parse(limits[name]) != parse(value):
                yield invalid_value(
                    place, value, f"must be equal to {name} limit of {limits[name]}"
                )
        elif name in limits and parse(value) > parse(limits[name]):
            yield invalid_value(
                place, value, f"must be less than or equal to {name} limit of {limits[name]}"
            )


def _validate_tolerations(spec: dict[str, Any]) -> Iterator[Cause]:
    for i, toleration in enumerate(spec.get("tolerations", [])):
        field = f"spec.tolerations[{i}]"
        operator = toleration.get("operator", "Equal")
        if operator not in ("Equal", "Exists"):
            yield not_supported(f"{field}.operator", operator, ("Equal", "Exists"))
        if not toleration.get("key") and operator != "Exists":
            yield invalid_value(
                f"{field}.operator",
                operator,
                "operator must be Exists when `key` is empty, which means 'match all values and "
                "all keys'",
            )
        effect = toleration.get("effect")
        if effect and effect not in check.TAINT_EFFECTS:
            yield not_supported(f"{field}.effect", effect, check.TAINT_EFFECTS)


def _validate_placement(spec: dict[str, Any]) -> Iterator[Cause]:
    for i, gate in enumerate(spec.get("schedulingGates", [])):
        yield from check.qualified_name(f"spec.schedulingGates[{i}].name", gate.get("name", ""))
    if spec.get("schedulingGates") and spec.get("nodeName"):
        why = "cannot be set until all schedulingGates have been cleared"
        yield forbidden_field("spec.nodeName", why)
    if spec.get("nodeName"):
        yield from check.subdomain("spec.nodeName", spec["nodeName"])
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    field = "spec.affinity.nodeAffinity"
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if needed is not None:
        place = f"{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        if not needed.get("nodeSelectorTerms"):
            yield required(place, "must have at least one node selector term")
        for i, term in enumerate(needed.get("nodeSelectorTerms", [])):
            yield from _validate_term(f"{place}[{i}]", term)
    place = f"{field}.preferredDuringSchedulingIgnoredDuringExecution"
    wishes = affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    for i, wish in enumerate(wishes):
        if not 1 <= wish.get("weight", 0) <= 100:
            why = "must be in the range 1-100"
            yield invalid_value(f"{place}[{i}].weight", wish.get("weight", 0), why)
        yield from _validate_term(f"{place}[{i}].preference", wish.get("preference", {}))


def _validate_term(field: str, term: dict[str, Any]) -> Iterator[Cause]:
    for part in ("matchExpressions", "matchFields"):
        for i, expression in enumerate(term.get(part, [])):
            place = f"{field}.{part}[{i}]"
            operator, values = expression.get("operator", ""), expression.get("values", [])
            if not expression.get("key"):
                yield required(f"{place}.key")
            if operator not in _OPERATORS:
                yield invalid_value(f"{place}.operator", operator, "not a valid selector operator")
            elif operator in ("In", "NotIn") and not values:
                why = "must be specified when `operator` is 'In' or 'NotIn'"
                yield required(f"{place}.values", why)
            elif operator in ("Gt", "Lt") and len(values) != 1:
                why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                yield required(f"{place}.values", why)
