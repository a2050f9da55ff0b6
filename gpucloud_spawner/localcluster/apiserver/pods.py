"""Pods: what Kubernetes fills in and lets change; what it refuses is in `pod_validation`. Where a
pod runs and what happens to its processes is decided by the scheduler and the kubelet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..quantity import parse
from .errors import (
    Cause,
    forbidden_field,
)
from .store import Object

UPDATE_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_CHANGEABLE = ("activeDeadlineSeconds", "tolerations", "schedulingGates")
_SPEC_DEFAULTS: dict[str, Any] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}
# What only a pod gets, not a template of pods.
_POD_DEFAULTS: dict[str, Any] = {
    "serviceAccountName": "default",
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
    set_template_defaults(spec)
    for key, value in _POD_DEFAULTS.items():
        spec.setdefault(key, value)
    spec["serviceAccount"] = spec["serviceAccountName"]
    for container in _containers(spec):
        _resource_defaults(container["resources"])
    _default_tolerations(spec)


def set_template_defaults(spec: dict[str, Any]) -> None:
    """What the spec of a pod gets also where it is only a template of pods."""
    for key, value in _SPEC_DEFAULTS.items():
        spec.setdefault(key, value)
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    spec.setdefault("securityContext", {})
    for container in _containers(spec):
        _container_defaults(container)
    for volume in spec.get("volumes", []):
        _volume_defaults(volume)


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
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe_defaults(container[name])


def _resource_defaults(resources: dict[str, Any]) -> None:
    if "limits" in resources:
        requests = resources.setdefault("requests", {})
        for name, value in resources["limits"].items():
            requests.setdefault(name, value)


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


def gated_condition() -> dict[str, Any]:
    """What a pod says that no scheduler may touch yet."""
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": None,
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }


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


def validate_update(new: Object, old: Object) -> Iterator[Cause]:
    """Of a pod's spec only images, the deadline, further tolerations and fewer gates may change."""
    spec, before = new["spec"], old["spec"]
    if spec == before:
        return
    gates = before.get("schedulingGates", [])
    for gate in spec.get("schedulingGates", []):
        if gate not in gates:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield forbidden_field("spec.schedulingGates", why)
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
    fixed = {k: v for k, v in spec.items() if k not in _CHANGEABLE}
    for kind in ("containers", "initContainers"):
        if kind in fixed:
            fixed[kind] = [{**c, "image": ""} for c in fixed[kind]]
    return fixed
