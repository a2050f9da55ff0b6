"""The columns of each kind's Table, with the words that Kubernetes prints in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .ages import age_of, human_duration
from .pod_summary import pod_ready, pod_restarts, pod_status
from .store import Object

NONE = "<none>"
UNKNOWN = "<unknown>"
_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_ROLE = "node-role.kubernetes.io/"
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Column:
    """One column; priority 1 columns are printed by `-o wide` only."""

    name: str
    cell: Callable[[Object], Any]
    priority: int = 0
    type: str = "string"
    description: str = ""


def _at(*path: str, default: Any = NONE) -> Callable[[Object], Any]:
    def cell(obj: Object) -> Any:
        value: Any = obj
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return default if value in (None, "") else value

    return cell


_NAME = Column("Name", _at("metadata", "name"), description="Name of the object.")
_AGE = Column(
    "Age",
    lambda obj: age_of(obj["metadata"].get("creationTimestamp")),
    description="Time since the object was created.",
)


def _pairs(pairs: dict[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(pairs.items())) or NONE


def _readiness_gates(pod: Object) -> str:
    gates = [g["conditionType"] for g in pod["spec"].get("readinessGates", [])]
    met = [
        c
        for c in pod["status"].get("conditions", [])
        if c["type"] in gates and c["status"] == "True"
    ]
    return f"{len(met)}/{len(gates)}" if gates else NONE


def _node_status(node: Object) -> str:
    ready = [c for c in node["status"].get("conditions", []) if c["type"] == "Ready"]
    word = "Unknown" if not ready else "Ready" if ready[0]["status"] == "True" else "NotReady"
    return word + ",SchedulingDisabled" if node["spec"].get("unschedulable") else word


def _node_roles(node: Object) -> str:
    labels = node["metadata"].get("labels", {})
    return ",".join(sorted(k[len(_ROLE) :] for k in labels if k.startswith(_ROLE))) or NONE


def _node_address(kind: str) -> Callable[[Object], str]:
    def cell(node: Object) -> str:
        found = [a["address"] for a in node["status"].get("addresses", []) if a["type"] == kind]
        return found[0] if found else NONE

    return cell


def _info(name: str) -> Callable[[Object], str]:
    return _at("status", "nodeInfo", name, default=UNKNOWN)


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(obj["status"].get("phase", ""))


def _access_modes(modes: list[str]) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in modes)


def _bound(cell: Callable[[Object], Any]) -> Callable[[Object], Any]:
    """What is known of a claim only once it has its volume."""
    return lambda claim: cell(claim) if claim["spec"].get("volumeName") else ""


def _claim_of(volume: Object) -> str:
    claim = volume["spec"].get("claimRef")
    return f"{claim['namespace']}/{claim['name']}" if claim else ""


def _ports(service: Object) -> str:
    ports = service["spec"].get("ports", [])
    told = [
        f"{p['port']}:{p['nodePort']}/{p['protocol']}"
        if p.get("nodePort")
        else f"{p['port']}/{p['protocol']}"
        for p in ports
    ]
    return ",".join(told) or NONE


def _external_ip(service: Object) -> str:
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        return str(spec.get("externalName", NONE))
    if spec["type"] == "LoadBalancer" and not spec.get("externalIPs"):
        return "<pending>"
    return ",".join(spec.get("externalIPs", [])) or NONE


def _first_seen(event: Object) -> str:
    return age_of(event.get("firstTimestamp") or event.get("eventTime"))


def _last_seen(event: Object) -> str:
    if event.get("series"):
        return age_of(event["series"].get("lastObservedTime"))
    return age_of(event["lastTimestamp"]) if event.get("lastTimestamp") else _first_seen(event)


def _event_count(event: Object) -> int:
    return int(event.get("series", {}).get("count") or event.get("count") or 1)


def _event_object(event: Object) -> str:
    involved = event["involvedObject"]
    kind = involved.get("kind", "").lower()
    return f"{kind}/{involved['name']}" if involved.get("name") else kind


def _event_source(event: Object) -> str:
    source = event.get("source", {})
    if source.get("component"):
        return ", ".join(filter(None, (source["component"], source.get("host"))))
    return ", ".join(filter(None, (event["reportingComponent"], event["reportingInstance"])))


def _class_name(storage_class: Object) -> str:
    meta = storage_class["metadata"]
    default = meta.get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    return f"{meta['name']} (default)" if default else str(meta["name"])


def _storage(*path: str) -> Callable[[Object], Any]:
    return _at(*path, "storage", default="")


def _job_status(job: Object) -> str:
    """The state of a Job in one word, the final ones first."""
    conditions = job["status"].get("conditions", [])
    true = {c["type"] for c in conditions if c["status"] == "True"}
    if job["metadata"].get("deletionTimestamp") and not true & {"Complete", "Failed"}:
        return "Terminating"
    words = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((word for word in words if word in true), "Running")


def _job_completions(job: Object) -> str:
    spec, succeeded = job["spec"], job["status"].get("succeeded", 0)
    if "completions" in spec:
        return f"{succeeded}/{spec['completions']}"
    return (
        f"{succeeded}/1 of {spec['parallelism']}" if spec["parallelism"] > 1 else f"{succeeded}/1"
    )


def _job_duration(job: Object) -> str:
    started, ended = job["status"].get("startTime"), job["status"].get("completionTime")
    if not started:
        return ""
    if not ended:
        return age_of(started)
    return human_duration(
        (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    )


def _template(part: str) -> Callable[[Object], str]:
    return lambda job: ",".join(c[part] for c in job["spec"]["template"]["spec"]["containers"])


def _slice_ports(found: Object) -> str:
    return _some([str(p["port"]) for p in found.get("ports", []) if "port" in p], "<unset>")


def _slice_endpoints(found: Object) -> str:
    return _some([a for e in found["endpoints"] for a in e["addresses"]], "<unset>")


def _some(texts: list[str], none: str) -> str:
    """The first three, and how many more there are."""
    more = f" + {len(texts) - 3} more..." if len(texts) > 3 else ""
    return ",".join(texts[:3]) + more if texts else none


_MODE = _at("spec", "volumeMode", default="<unset>")
COLUMNS: dict[str, tuple[Column, ...]] = {
    "pods": (
        _NAME,
        Column("Ready", pod_ready, description="Containers that are ready, of all."),
        Column("Status", pod_status, description="The state of the containers in one word."),
        Column("Restarts", pod_restarts, description="Restarts of the containers."),
        _AGE,
        Column("IP", _at("status", "podIP"), 1, description="Address of the pod."),
        Column("Node", _at("spec", "nodeName"), 1, description="Node that runs the pod."),
        Column("Nominated Node", _at("status", "nominatedNodeName"), 1),
        Column("Readiness Gates", _readiness_gates, 1),
    ),
    "nodes": (
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _at("status", "nodeInfo", "kubeletVersion", default="")),
        Column("Internal-IP", _node_address("InternalIP"), 1),
        Column("External-IP", _node_address("ExternalIP"), 1),
        Column("OS-Image", _info("osImage"), 1),
        Column("Kernel-Version", _info("kernelVersion"), 1),
        Column("Container-Runtime", _info("containerRuntimeVersion"), 1),
    ),
    "namespaces": (_NAME, Column("Status", _at("status", "phase", default="")), _AGE),
    "persistentvolumeclaims": (
        _NAME,
        Column("Status", _phase),
        Column("Volume", _at("spec", "volumeName", default="")),
        Column("Capacity", _bound(_storage("status", "capacity"))),
        Column("Access Modes", _bound(lambda c: _access_modes(c["status"].get("accessModes", [])))),
        Column("StorageClass", _at("spec", "storageClassName", default="")),
        Column(
            "VolumeAttributesClass", _at("spec", "volumeAttributesClassName", default="<unset>")
        ),
        _AGE,
        Column("VolumeMode", _MODE, 1),
    ),
    "persistentvolumes": (
        _NAME,
        Column("Capacity", _storage("spec", "capacity")),
        Column("Access Modes", lambda v: _access_modes(v["spec"].get("accessModes", []))),
        Column("Reclaim Policy", _at("spec", "persistentVolumeReclaimPolicy", default="")),
        Column("Status", _phase),
        Column("Claim", _claim_of),
        Column("StorageClass", _at("spec", "storageClassName", default="")),
        Column(
            "VolumeAttributesClass", _at("spec", "volumeAttributesClassName", default="<unset>")
        ),
        Column("Reason", _at("status", "reason", default="")),
        _AGE,
        Column("VolumeMode", _MODE, 1),
    ),
    "secrets": (
        _NAME,
        Column("Type", _at("type", default="")),
        Column("Data", lambda s: len(s.get("data", {})), type="integer"),
        _AGE,
    ),
    "configmaps": (
        _NAME,
        Column("Data", lambda c: len(c.get("data", {})) + len(c.get("binaryData", {}))),
        _AGE,
    ),
    "services": (
        _NAME,
        Column("Type", _at("spec", "type")),
        Column("Cluster-IP", _at("spec", "clusterIP")),
        Column("External-IP", _external_ip),
        Column("Port(s)", _ports),
        _AGE,
        Column("Selector", lambda s: _pairs(s["spec"].get("selector", {})), 1),
    ),
    "serviceaccounts": (
        _NAME,
        Column("Secrets", lambda a: len(a.get("secrets", [])), type="integer"),
        _AGE,
    ),
    "events": (
        Column("Last Seen", _last_seen),
        Column("Type", _at("type", default="")),
        Column("Reason", _at("reason", default="")),
        Column("Object", _event_object),
        Column("Subobject", _at("involvedObject", "fieldPath", default=""), 1),
        Column("Source", _event_source, 1),
        Column("Message", lambda e: e.get("message", "").strip()),
        Column("First Seen", _first_seen, 1),
        Column("Count", _event_count, 1, "integer"),
        Column("Name", _at("metadata", "name"), 1),
    ),
    "storageclasses": (
        Column("Name", _class_name),
        Column("Provisioner", _at("provisioner")),
        Column("ReclaimPolicy", _at("reclaimPolicy", default="Delete")),
        Column("VolumeBindingMode", _at("volumeBindingMode", default="Immediate")),
        Column("AllowVolumeExpansion", lambda c: c.get("allowVolumeExpansion", False)),
        _AGE,
    ),
    "jobs": (
        _NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        _AGE,
        Column("Containers", _template("name"), 1),
        Column("Images", _template("image"), 1),
        Column("Selector", lambda j: _pairs(j["spec"]["selector"]["matchLabels"]), 1),
    ),
    "endpointslices": (
        _NAME,
        Column("AddressType", _at("addressType", default="")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        _AGE,
    ),
    "leases": (_NAME, Column("Holder", _at("spec", "holderIdentity", default="")), _AGE),
}
