"""Claims, volumes and storage classes: what Kubernetes fills in, refuses and lets change.

Binding a claim to a volume is a controller's work, not the API server's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..quantity import parse
from . import validation as check
from .errors import Cause, forbidden_field, invalid_value, not_supported, required
from .resources import served
from .store import Object, Store

CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
IMMUTABLE_CLAIM = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
    "bound claims"
)
_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})


def _storage(claim: Object) -> str:
    return claim["spec"].get("resources", {}).get("requests", {}).get("storage", "")


def _capacity(claim: Object) -> str:
    return claim.get("status", {}).get("capacity", {}).get("storage", "0")


def claim_defaults(claim: Object, store: Store) -> None:
    spec = claim.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})
    if "storageClassName" not in spec:
        default = default_class(store)
        if default:
            spec["storageClassName"] = default
    finalizers = claim["metadata"].setdefault("finalizers", [])
    if CLAIM_PROTECTION not in finalizers:
        finalizers.append(CLAIM_PROTECTION)
    claim["status"] = {"phase": "Pending"}


def default_class(store: Store) -> str | None:
    """The newest class that is marked as the default."""
    marked = [
        obj["metadata"]
        for obj in (r.load() for r in store.records(served("storageclasses", "storage.k8s.io")))
        if obj["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"
    ]
    newest = max(marked, key=lambda m: m["creationTimestamp"], default=None)
    return newest["name"] if newest else None


def validate_claim(claim: Object) -> Iterator[Cause]:
    spec = claim["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for mode in spec.get("accessModes", []):
        if mode not in _MODES:
            yield not_supported("spec.accessModes", mode, _MODES)
    size = _storage(claim)
    if not size:
        yield required("spec.resources[storage]")
    elif parse(size) <= 0:
        yield invalid_value("spec.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        yield from check.subdomain("spec.storageClassName", spec["storageClassName"])


def validate_claim_update(new: Object, old: Object) -> Iterator[Cause]:
    size, before = _storage(new), _storage(old)
    bound = old["status"].get("phase") == "Bound"
    fixed, fixed_before = _without_size(new["spec"]), _without_size(old["spec"])
    if not old["spec"].get("volumeName"):
        fixed.pop("volumeName", None)  # the controller binds an unbound claim
    if fixed != fixed_before or (size != before and not bound):
        yield forbidden_field("spec", IMMUTABLE_CLAIM)
    elif not size:
        yield required("spec.resources[storage]")
    elif parse(size) < parse(before) and parse(size) <= parse(_capacity(old)):
        # Down to the size it really has: that is how one gives up a growth that failed.
        yield forbidden_field(
            "spec.resources.requests.storage", "field can not be less than status.capacity"
        )


def expansion_refused(new: Object, old: Object, store: Store) -> str | None:
    """Admission's word on a claim that grows though its class does not allow it."""
    if not _storage(new) or parse(_storage(new)) <= parse(_storage(old)):
        return None
    name = new["spec"].get("storageClassName", "")
    found = store.find(served("storageclasses", "storage.k8s.io"), "", name)
    if found is not None and found.load().get("allowVolumeExpansion"):
        return None
    return (
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the "
        "pvc must support resize"
    )


def _without_size(spec: dict[str, Any]) -> dict[str, Any]:
    resources = {k: v for k, v in spec.get("resources", {}).items() if k != "requests"}
    return {**spec, "resources": resources, "volumeAttributesClassName": None}


def volume_defaults(volume: Object) -> None:
    spec = volume.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    finalizers = volume["metadata"].setdefault("finalizers", [])
    if VOLUME_PROTECTION not in finalizers:
        finalizers.append(VOLUME_PROTECTION)
    volume["status"] = {"phase": "Pending"}


def validate_volume(volume: Object) -> Iterator[Cause]:
    spec = volume["spec"]
    if not spec.get("accessModes"):
        yield required("spec.accessModes")
    if not spec.get("capacity", {}).get("storage"):
        yield required("spec.capacity")


def class_defaults(storage_class: Object) -> None:
    storage_class.setdefault("reclaimPolicy", "Delete")
    storage_class.setdefault("volumeBindingMode", "Immediate")


def validate_class(storage_class: Object) -> Iterator[Cause]:
    if not storage_class.get("provisioner"):
        yield required("provisioner")


def validate_class_update(new: Object, old: Object) -> Iterator[Cause]:
    for field, text in (
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ):
        if new.get(field) != old.get(field):
            yield forbidden_field(field, text)
