"""Pods: what Kubernetes fills in, refuses and lets change. Where a pod runs and what happens to its
processes is decided by the scheduler and the kubelet.
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
from .store import Object

UPDATE_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_RESTART = frozenset({"Always", "OnFailure", "Never"})
_DNS = frozenset({"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"})
_PULL = frozenset({"Always", "IfNotPresent", "Never"})
_EFFECTS = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})
_SPEC_DEFAULTS: dict[str, Any] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "default",
    "schedulerName": "default-scheduler",
    "priority": 0,
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}
_PROBE_DEFAULTS = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
# Sources that name a mode for their files get 0644 from Kubernetes.
_FILE_SOURCES = ("secret", "configMap", "downwardAPI", "projected")
_TOLERATION_SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def set_defaults(spec: dict[str, Any]) -> None:
    for key, value in _SPEC_DEFAULTS.items():
        spec.setdefault(key, value)
    spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("securityContext", {})
    for container in _containers(spec):
        _container_defaults(container)
    for volume in spec.get("volumes", []):
        _volume_defaults(volume)
    _default_tolerations(spec)


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def _container_defaults(container: dict[str, Any]) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for env in container.get("env", []):
        reference = env.get("valueFrom", {}).get("fieldRef")
        if reference:
            reference.setdefault("apiVersion", "v1")
    resources = container["resources"]
    if "limits" in resources:
        requests = resources.setdefault("requests", {})
        for name, value in resources["limits"].items():
            requests.setdefault(name, value)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe_defaults(container[name])


def _pull_policy(image: str) -> str:
    """Always for a moving tag: `:latest`, or no tag and no digest at all."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if "@" in image or tag not in ("", "latest") else "Always"


def _probe_defaults(probe: dict[str, Any]) -> None:
    for key, value in _PROBE_DEFAULTS.items():
        probe.setdefault(key, value)
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _volume_defaults(volume: dict[str, Any]) -> None:
    for source in _FILE_SOURCES:
        if source in volume:
            volume[source].setdefault("defaultMode", 420)
    if len(volume) == 1:  # only a name
        volume["emptyDir"] = {}


def _default_tolerations(spec: dict[str, Any]) -> None:
    """Admission's DefaultTolerationSeconds: five minutes on a node that is gone."""
    given = spec.setdefault("tolerations", [])
    for key in _TAINTS:
        covered = any(
            t.get("key", key) == key and t.get("effect", "NoExecute") == "NoExecute" for t in given
        )
        if not covered:
            given.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": _TOLERATION_SECONDS,
                }
            )


def qos_class(spec: dict[str, Any]) -> str:
    """Guaranteed: every container limits cpu and memory to what it requests; BestEffort: none
    says anything about cpu or memory."""
    burstable = False
    guaranteed = True
    for container in _containers(spec):
        resources = container.get("resources", {})
        for name in ("cpu", "memory"):
            request = resources.get("requests", {}).get(name)
            limit = resources.get("limits", {}).get(name)
            burstable = burstable or bool(request or limit)
            guaranteed = guaranteed and bool(limit) and parse(limit) == parse(request or limit)
    if not burstable:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


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
        secret = volume.get("secret")
        if secret is not None and not secret.get("secretName"):
            yield required(f"{field}.secret.secretName")
        config = volume.get("configMap")
        if config is not None and not config.get("name"):
            yield required(f"{field}.configMap.name")


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
    for i, port in enumerate(container.get("ports", [])):
        if "containerPort" not in port:
            yield required(f"{field}.ports[{i}].containerPort")
        yield from check.port(f"{field}.ports[{i}].containerPort", port.get("containerPort"))
    yield from _validate_mounts(field, container, volumes)
    yield from _validate_resources(f"{field}.resources", container["resources"])


def _validate_env(field: str, env: dict[str, Any]) -> Iterator[Cause]:
    name = env.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif not check.ENV_RE.fullmatch(name):
        yield invalid_value(
            f"{field}.name",
            name,
            "a valid environment variable name must consist only of printable ASCII characters "
            "other than '='",
        )
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
        if effect and effect not in _EFFECTS:
            yield not_supported(f"{field}.effect", effect, _EFFECTS)


def validate_update(new: Object, old: Object) -> Iterator[Cause]:
    """Of a pod's spec only images, the deadline and further tolerations may change."""
    spec, before = new["spec"], old["spec"]
    if spec == before:
        return
    kept = [t for t in before.get("tolerations", []) if t not in spec.get("tolerations", [])]
    if kept:
        yield forbidden_field(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        )
        return
    if _frozen(spec) != _frozen(before):
        yield forbidden_field("spec", UPDATE_RULE)


def _frozen(spec: dict[str, Any]) -> dict[str, Any]:
    fixed = {k: v for k, v in spec.items() if k not in ("activeDeadlineSeconds", "tolerations")}
    for kind in ("containers", "initContainers"):
        if kind in fixed:
            fixed[kind] = [{**c, "image": ""} for c in fixed[kind]]
    return fixed
