"""The table of what the API server knows: kinds it serves and kinds it names but does not serve.

Data only. A later kind is one more row here, its strategy in `strategy.py` and its columns in
`printers.py`. What an operation does with a resource does not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .schema import ALWAYS

Path = tuple[str, ...]

META_LABELS: dict[str, Path] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
}


@dataclass(frozen=True, eq=False)
class Resource:
    """One served resource. `field_labels` are what a field selector may name, `bookmark` is the
    empty object that a BOOKMARK event carries beside its resourceVersion."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    field_labels: Mapping[str, Path] = field(default_factory=lambda: META_LABELS)
    bookmark: Mapping[str, object] = field(default_factory=dict)

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As Kubernetes names the resource in messages: `pods`, `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @cached_property
    def head(self) -> bytes:
        """The start of an encoded object; stored objects leave kind and apiVersion out because
        the items of a list do not carry them."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()

    @cached_property
    def field_paths(self) -> tuple[Path, ...]:
        return tuple(self.field_labels.values())

    @cached_property
    def field_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.field_labels)}


def _fields(*paths: str) -> dict[str, Path]:
    return {**META_LABELS, **{p: tuple(p.split(".")) for p in paths}}


INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_FIELDS = {
    **_fields(
        *(f"involvedObject.{name}" for name in INVOLVED),
        "reason",
        "type",
        "reportingComponent",
    ),
    "source": ("source", "component"),
}

RESOURCES: tuple[Resource, ...] = (
    Resource(
        "",
        "v1",
        "Pod",
        "pods",
        True,
        ("po",),
        ("status", "log", "binding", "exec"),
        ("all",),
        _fields(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ),
        {"spec": {"containers": None}, "status": {}},
    ),
    Resource(
        "",
        "v1",
        "Node",
        "nodes",
        False,
        ("no",),
        ("status", "proxy"),
        field_labels=_fields("spec.unschedulable"),
        bookmark={"spec": {}, "status": {}},
    ),
    Resource(
        "",
        "v1",
        "Namespace",
        "namespaces",
        False,
        ("ns",),
        ("status", "finalize"),
        field_labels=_fields("status.phase"),
        bookmark={"spec": {}, "status": {}},
    ),
    Resource(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        True,
        ("pvc",),
        ("status",),
        bookmark={"spec": {"resources": {}}, "status": {}},
    ),
    Resource(
        "",
        "v1",
        "PersistentVolume",
        "persistentvolumes",
        False,
        ("pv",),
        ("status",),
        bookmark={"spec": {}, "status": {}},
    ),
    Resource("", "v1", "Secret", "secrets", True, field_labels=_fields("type")),
    Resource("", "v1", "ConfigMap", "configmaps", True, ("cm",)),
    Resource(
        "",
        "v1",
        "Service",
        "services",
        True,
        ("svc",),
        ("status",),
        ("all",),
        _fields("spec.clusterIP", "spec.type"),
        {"spec": {}, "status": {"loadBalancer": {}}},
    ),
    Resource("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",)),
    Resource(
        "",
        "v1",
        "Event",
        "events",
        True,
        ("ev",),
        field_labels=_EVENT_FIELDS,
        bookmark={
            "involvedObject": {},
            **ALWAYS["Event"],
        },
    ),
    Resource(
        "storage.k8s.io",
        "v1",
        "StorageClass",
        "storageclasses",
        False,
        ("sc",),
        bookmark={"provisioner": ""},
    ),
    Resource("coordination.k8s.io", "v1", "Lease", "leases", True, bookmark={"spec": {}}),
    Resource(
        "batch",
        "v1",
        "Job",
        "jobs",
        True,
        subresources=("status",),
        categories=("all",),
        field_labels={**META_LABELS, "status.successful": ("status", "succeeded")},
        bookmark={
            "spec": {"template": {"metadata": {}, "spec": {"containers": None}}},
            "status": {},
        },
    ),
    Resource(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        True,
        bookmark={"addressType": "", "endpoints": None, "ports": None},
    ),
)

BY_PLURAL: dict[tuple[str, str, str], Resource] = {
    (r.group, r.version, r.plural): r for r in RESOURCES
}
BY_KIND: dict[tuple[str, str], Resource] = {(r.api_version, r.kind): r for r in RESOURCES}


def served(plural: str, group: str = "", version: str = "v1") -> Resource:
    return BY_PLURAL[group, version, plural]


# (group, version) -> plurals of Kubernetes 1.36 that this server names in a 501 instead of a 404.
UNIMPLEMENTED: dict[tuple[str, str], frozenset[str]] = {
    (group, version): frozenset(plurals.split())
    for group, version, plurals in (
        (
            "",
            "v1",
            "bindings componentstatuses endpoints limitranges podtemplates replicationcontrollers "
            "resourcequotas",
        ),
        ("apps", "v1", "controllerrevisions daemonsets deployments replicasets statefulsets"),
        ("batch", "v1", "cronjobs"),
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        ("autoscaling", "v2", "horizontalpodautoscalers"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("events.k8s.io", "v1", "events"),
        ("networking.k8s.io", "v1", "ingressclasses ingresses networkpolicies"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
        ("node.k8s.io", "v1", "runtimeclasses"),
        ("resource.k8s.io", "v1", "deviceclasses resourceclaims resourceclaimtemplates"),
        (
            "storage.k8s.io",
            "v1",
            "csidrivers csinodes csistoragecapacities volumeattachments volumeattributesclasses",
        ),
        ("authentication.k8s.io", "v1", "selfsubjectreviews tokenreviews"),
        (
            "authorization.k8s.io",
            "v1",
            "localsubjectaccessreviews selfsubjectaccessreviews selfsubjectrulesreviews "
            "subjectaccessreviews",
        ),
        ("rbac.authorization.k8s.io", "v1", "clusterrolebindings clusterroles rolebindings roles"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        (
            "admissionregistration.k8s.io",
            "v1",
            "mutatingwebhookconfigurations validatingadmissionpolicies "
            "validatingadmissionpolicybindings validatingwebhookconfigurations",
        ),
        ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    )
}

# `kubectl describe namespace` takes a 404 for "this server has none" and fails on anything else.
OPTIONAL = frozenset({"limitranges", "resourcequotas"})

UNIMPLEMENTED_SUBRESOURCES: dict[str, frozenset[str]] = {
    "pods": frozenset(
        ["attach", "ephemeralcontainers", "eviction", "portforward", "proxy", "resize"],
    ),
    "services": frozenset({"proxy"}),
    "serviceaccounts": frozenset({"token"}),
}
