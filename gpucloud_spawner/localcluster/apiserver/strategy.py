"""What differs from kind to kind when an object is created, updated or deleted.

A strategy changes and judges plain dicts; it does no I/O. The order of the steps, and everything
that is the same for all kinds, is in `operations.py`.
"""

from __future__ import annotations

import base64
import ipaddress
import random
from collections.abc import Iterator
from typing import Any

from . import pod_validation, pods, volumes
from . import validation as check
from .errors import (
    Cause,
    forbidden,
    forbidden_field,
    invalid_value,
    required,
)
from .resources import Resource
from .store import Object, Store

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/12")


class Strategy:
    """The rules of a kind without rules of its own."""

    has_status = False  # the main endpoint leaves .status alone
    has_generation = False
    graceful = False  # deletion waits for somebody (a pod's kubelet)
    returns_deleted = False  # DELETE answers the object instead of a Status
    default_policy = ""  # propagation of a DELETE that names none
    delete_warning = ""  # what the sender of such a DELETE is told

    def __init__(self, store: Store, resource: Resource) -> None:
        self.store = store
        self.resource = resource

    def prepare_create(self, obj: Object) -> None:
        """Fill in defaults."""

    def validate_name(self, name: str) -> Iterator[Cause]:
        yield from check.subdomain("metadata.name", name)

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from ()

    def admit_create(self, obj: Object) -> None:
        """Refuse with 403 what admission refuses."""

    def prepare_update(self, new: Object, old: Object) -> None:
        """Fill in defaults of what the update left out."""

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from ()

    def grace_period(self, obj: Object, asked: int | None) -> int:
        return 0


class PodStrategy(Strategy):
    has_status = has_generation = graceful = returns_deleted = True

    def prepare_create(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        pods.set_defaults(spec)
        obj["status"] = {"phase": "Pending", "qosClass": pods.qos_class(spec)}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [pods.gated_condition()]

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from pod_validation.validate(obj["spec"])

    def prepare_update(self, new: Object, old: Object) -> None:
        pods.set_defaults(new.setdefault("spec", {}))

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from pods.validate_update(new, old)

    def grace_period(self, obj: Object, asked: int | None) -> int:
        if not obj["spec"].get("nodeName"):
            return 0
        if obj["status"].get("phase") in ("Succeeded", "Failed"):
            return 0
        period = obj["spec"]["terminationGracePeriodSeconds"] if asked is None else asked
        return period if period >= 0 else 1


class NodeStrategy(Strategy):
    has_status = True

    def prepare_create(self, obj: Object) -> None:
        obj.setdefault("spec", {})
        status = obj.setdefault("status", {})
        # A kubelet that names only what it has means that all of it may be used.
        if "capacity" in status:
            status.setdefault("allocatable", dict(status["capacity"]))
        obj["metadata"].setdefault("annotations", {}).setdefault(
            "node.alpha.kubernetes.io/ttl", "0"
        )

    def prepare_update(self, new: Object, old: Object) -> None:
        new.setdefault("spec", {})

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        for i, taint in enumerate(obj["spec"].get("taints", [])):
            field = f"spec.taints[{i}]"
            yield from check.qualified_name(f"{field}.key", taint.get("key", ""))
            yield from check.one_of(f"{field}.effect", taint.get("effect"), check.TAINT_EFFECTS)

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from self.validate_create(new)


class NamespaceStrategy(Strategy):
    has_status = True
    returns_deleted = True

    def validate_name(self, name: str) -> Iterator[Cause]:
        yield from check.dns_label("metadata.name", name)

    def prepare_create(self, obj: Object) -> None:
        self._label(obj)
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")
        obj["status"] = {"phase": "Active"}

    def prepare_update(self, new: Object, old: Object) -> None:
        self._label(new)
        new["spec"] = old["spec"]  # only /finalize changes it

    def _label(self, obj: Object) -> None:
        meta = obj["metadata"]
        labels = meta.setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = meta.get("name", "")


class ClaimStrategy(Strategy):
    has_status = returns_deleted = True

    def prepare_create(self, obj: Object) -> None:
        volumes.claim_defaults(obj, self.store)

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from volumes.validate_claim(obj)

    def prepare_update(self, new: Object, old: Object) -> None:
        new.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from volumes.validate_claim_update(new, old)
        refused = volumes.expansion_refused(new, old, self.store)
        if refused:
            raise forbidden(self.resource, new["metadata"]["name"], refused)


class VolumeStrategy(Strategy):
    has_status = returns_deleted = True

    def prepare_create(self, obj: Object) -> None:
        volumes.volume_defaults(obj)

    def prepare_update(self, new: Object, old: Object) -> None:
        new.setdefault("spec", {})

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from volumes.validate_volume(obj)

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from volumes.validate_volume(new)


class StorageClassStrategy(Strategy):
    returns_deleted = True

    def prepare_create(self, obj: Object) -> None:
        volumes.class_defaults(obj)

    def prepare_update(self, new: Object, old: Object) -> None:
        volumes.class_defaults(new)

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        yield from volumes.validate_class(obj)

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        yield from volumes.validate_class_update(new, old)


class SecretStrategy(Strategy):
    def prepare_create(self, obj: Object) -> None:
        _fold_string_data(obj)
        obj.setdefault("type", "Opaque")

    def prepare_update(self, new: Object, old: Object) -> None:
        _fold_string_data(new)
        new.setdefault("type", old["type"])

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        data = obj.get("data", {})
        for key in data:
            yield from check.config_key(f"data[{key}]", key)
        yield from check.data_size("data", (len(v) * 3 // 4 for v in data.values()))

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        if new["type"] != old["type"]:
            yield invalid_value("type", new["type"], "field is immutable")
        if old.get("immutable"):
            if not new.get("immutable"):
                yield forbidden_field("immutable", "field is immutable when `immutable` is set")
            if new.get("data") != old.get("data"):
                yield forbidden_field("data", "field is immutable when `immutable` is set")
        yield from self.validate_create(new)


def _fold_string_data(secret: Object) -> None:
    for key, value in secret.pop("stringData", {}).items():
        encoded = base64.b64encode(value.encode()).decode()
        secret.setdefault("data", {})[key] = encoded


class ConfigMapStrategy(Strategy):
    def validate_create(self, obj: Object) -> Iterator[Cause]:
        data, binary = obj.get("data", {}), obj.get("binaryData", {})
        for field, values in (("data", data), ("binaryData", binary)):
            for key in values:
                yield from check.config_key(f"{field}[{key}]", key)
        sizes = (len(v) for values in (data, binary) for v in values.values())
        yield from check.data_size("", sizes)

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        if old.get("immutable"):
            for field in ("data", "binaryData"):
                if new.get(field) != old.get(field):
                    yield forbidden_field(field, "field is immutable when `immutable` is set")
        yield from self.validate_create(new)


class ServiceStrategy(Strategy):
    has_status = returns_deleted = True

    def validate_name(self, name: str) -> Iterator[Cause]:
        yield from check.service_name("metadata.name", name)

    def prepare_create(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        self._defaults(spec)
        if spec["type"] != "ExternalName":
            if not spec.get("clusterIP"):
                spec["clusterIP"] = self._free_address()
            spec["clusterIPs"] = [spec["clusterIP"]]
        obj["status"] = {"loadBalancer": {}}

    def prepare_update(self, new: Object, old: Object) -> None:
        spec = new.setdefault("spec", {})
        if old["spec"].get("clusterIP") and not spec.get("clusterIP"):
            spec["clusterIP"] = old["spec"]["clusterIP"]
        if spec.get("clusterIP"):
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
        self._defaults(spec)

    def _defaults(self, spec: dict[str, Any]) -> None:
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["type"] != "ExternalName":
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
            spec.setdefault("internalTrafficPolicy", "Cluster")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            if "port" in port:
                port.setdefault("targetPort", port["port"])

    def _free_address(self) -> str:
        used = {r.fields[self.resource.field_index["spec.clusterIP"]] for r in self._all()}
        while True:  # a million addresses: a few services never exhaust them
            offset = random.randrange(256, SERVICE_NETWORK.num_addresses - 1)  # noqa: S311
            address = str(SERVICE_NETWORK[offset])
            if address not in used:
                return address

    def _all(self) -> Iterator[Any]:
        return self.store.records(self.resource)

    def validate_create(self, obj: Object) -> Iterator[Cause]:
        spec = obj["spec"]
        headless = spec.get("clusterIP") == "None" or spec["type"] == "ExternalName"
        if not spec.get("ports") and not headless:
            yield required("spec.ports")
        names: set[str] = set()
        for i, port in enumerate(spec.get("ports", [])):
            field = f"spec.ports[{i}]"
            name = port.get("name", "")
            if not name and len(spec["ports"]) > 1:
                yield required(f"{field}.name")
            if name:
                yield from check.dns_label(f"{field}.name", name)
            if name in names:
                yield Cause("FieldValueDuplicate", f"{field}.name", f'Duplicate value: "{name}"')
            names.add(name)
            if "port" not in port:
                yield required(f"{field}.port")
            yield from check.port(f"{field}.port", port.get("port"))
            yield from check.port(f"{field}.targetPort", port.get("targetPort"))
        yield from check.labels("spec.selector", spec.get("selector", {}))

    def validate_update(self, new: Object, old: Object) -> Iterator[Cause]:
        before, after = old["spec"].get("clusterIP"), new["spec"].get("clusterIP")
        if before and new["spec"]["type"] != "ExternalName" and before != after:
            yield invalid_value("spec.clusterIPs[0]", [after], "may not change once set")
        yield from self.validate_create(new)


class ServiceAccountStrategy(Strategy):
    returns_deleted = True


class EventStrategy(Strategy):
    def validate_create(self, obj: Object) -> Iterator[Cause]:
        namespace = obj["metadata"].get("namespace", "")
        involved = obj.get("involvedObject", {}).get("namespace", "")
        # An event about an object without a namespace lives in `default`.
        if involved != namespace and not (involved == "" and namespace == "default"):
            yield invalid_value(
                "involvedObject.namespace", involved, "does not match event.namespace"
            )

    def prepare_create(self, obj: Object) -> None:
        obj.setdefault("involvedObject", {})

    def prepare_update(self, new: Object, old: Object) -> None:
        new.setdefault("involvedObject", {})


class LeaseStrategy(Strategy):
    def prepare_create(self, obj: Object) -> None:
        obj.setdefault("spec", {})

    def prepare_update(self, new: Object, old: Object) -> None:
        new.setdefault("spec", {})
