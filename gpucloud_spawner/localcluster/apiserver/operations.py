"""Create, update, patch and delete as Kubernetes does them, for every kind alike.

Works on decoded objects and the store. HTTP is in `api.py`, what differs by kind in `strategy.py`.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from . import validation as check
from .errors import (
    already_exists,
    bad_request,
    conflict,
    forbidden,
    invalid,
    invalid_value,
    not_found,
    required,
)
from .resources import Resource, served
from .store import Object, Record, Store
from .strategies import strategies
from .strategy import Strategy

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words in generated names
_SYSTEM_FIELDS = ("uid", "creationTimestamp", "generation", "deletionTimestamp")
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_LONGEST = 10**9  # seconds of grace; a deletion's time must stay within the calendar
_POLICIES = {"Foreground": FOREGROUND, "Orphan": ORPHAN, "Background": None}

Change = Callable[[Object], Object]


@dataclass(frozen=True)
class DeleteOptions:
    grace: int | None = None
    policy: str = ""
    uid: str = ""
    version: str = ""
    dry_run: bool = False


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _later(time: str, seconds: int) -> str:
    seconds = max(-_LONGEST, min(seconds, _LONGEST))
    moved = datetime.fromisoformat(time) + timedelta(seconds=seconds)
    return moved.strftime("%Y-%m-%dT%H:%M:%SZ")


class Operations:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._strategies = strategies(store)
        self._namespaces = served("namespaces")
        self._pods = served("pods")

    def strategy(self, resource: Resource) -> Strategy:
        return self._strategies[resource.plural]

    # -- create

    def create(
        self, resource: Resource, namespace: str, obj: Object, dry_run: bool = False
    ) -> Record:
        strategy = self.strategy(resource)
        meta = obj.setdefault("metadata", {})
        self._place(resource, namespace, meta)
        self._system_metadata(meta, strategy)
        strategy.prepare_create(obj)
        self._check_namespace(resource, namespace, meta["name"])
        causes = [
            *strategy.validate_name(meta["name"]),
            *check.metadata(obj),
            *strategy.validate_create(obj),
        ]
        if causes:
            raise invalid(resource, meta["name"], causes)
        strategy.admit_create(obj)
        if dry_run:
            self._refuse_existing(resource, namespace, meta["name"])
            return Record(resource, (namespace, meta["name"]), 0, obj, orjson.dumps(obj))
        return self.store.create(resource, obj)

    def _place(self, resource: Resource, namespace: str, meta: dict[str, Any]) -> None:
        if resource.namespaced:
            if meta.get("namespace", namespace) != namespace:
                raise bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
            meta["namespace"] = namespace
        else:
            meta.pop("namespace", None)
        if not meta.get("name"):
            prefix = meta.get("generateName")
            if not prefix:
                why = "name or generateName is required"
                raise invalid(resource, "", [required("metadata.name", why)])
            suffix = "".join(random.choices(_SUFFIX, k=5))  # noqa: S311
            meta["name"] = prefix[:58] + suffix
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")

    def _system_metadata(self, meta: dict[str, Any], strategy: Strategy) -> None:
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            meta.pop(field, None)
        meta.pop("managedFields", None)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now()
        if strategy.has_generation:
            meta["generation"] = 1

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        found = self.store.find(self._namespaces, "", namespace)
        if found is None:
            raise not_found(self._namespaces, namespace)
        if found.fields[self._namespaces.field_index["status.phase"]] == "Terminating":
            error = forbidden(
                resource,
                name,
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
            )
            assert error.details is not None
            error.details["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise error

    def _refuse_existing(self, resource: Resource, namespace: str, name: str) -> None:
        if self.store.find(resource, namespace, name) is not None:
            raise already_exists(resource, name)

    # -- update

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Change,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Record:
        """Store what `change` makes of the current object, under the rules of an update."""
        old = self.store.get(resource, namespace, name)
        current = old.load()
        new = change(old.load())
        meta = new.setdefault("metadata", {})
        self._check_identity(resource, current, meta)
        self._keep_system_metadata(meta, current["metadata"])
        strategy = self.strategy(resource)
        if subresource:
            self._restrict(new, current, subresource)
        else:
            if strategy.has_status:
                new["status"] = current["status"]
            strategy.prepare_update(new, current)
        causes = [*check.metadata(new), *check.no_new_finalizers(new, current)]
        if not subresource:
            causes += strategy.validate_update(new, current)
        if causes:
            raise invalid(resource, name, causes)
        if strategy.has_generation and new.get("spec") != current.get("spec"):
            meta["generation"] = current["metadata"].get("generation", 0) + 1
        if dry_run:
            meta["resourceVersion"] = str(old.version)
            return Record(resource, old.key, old.version, new, orjson.dumps(new))
        if self._finished(resource, new):
            return self.store.remove(resource, old, new)
        return self.store.replace(resource, old, new)

    def _check_identity(self, resource: Resource, current: Object, meta: dict[str, Any]) -> None:
        before = current["metadata"]
        name = before["name"]
        if meta.setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL "
                f"({name})"
            )
        if (
            resource.namespaced
            and meta.setdefault("namespace", before["namespace"]) != before["namespace"]
        ):
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        if meta.get("uid", before["uid"]) != before["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
                f"{before['uid']}"
            )
            raise conflict(resource, name, why)
        version = meta.get("resourceVersion")
        if version and not (version.isascii() and version.isdigit()):
            cause = invalid_value("metadata.resourceVersion", version, "must be a number")
            raise invalid(resource, name, [cause])
        if version and version != before["resourceVersion"]:
            raise conflict(resource, name)

    def _keep_system_metadata(self, meta: dict[str, Any], before: dict[str, Any]) -> None:
        for field in (*_SYSTEM_FIELDS, "deletionGracePeriodSeconds", "generateName"):
            if field in before:
                meta[field] = before[field]
            else:
                meta.pop(field, None)
        meta.pop("managedFields", None)

    def _restrict(self, new: Object, current: Object, subresource: str) -> None:
        """A subresource changes its own part and metadata; `finalize` only the finalizers."""
        if subresource == "status":
            for field in {*current, *new} - {"metadata", "status"}:
                if field in current:
                    new[field] = current[field]
                else:
                    del new[field]
            new["metadata"]["ownerReferences"] = current["metadata"].get("ownerReferences")
            if not new["metadata"]["ownerReferences"]:
                del new["metadata"]["ownerReferences"]
            new.setdefault("status", {})
        elif subresource == "finalize":
            new["status"] = current["status"]
            new["metadata"] = current["metadata"]

    def _finished(self, resource: Resource, obj: Object) -> bool:
        """Whether an object that is being deleted has nothing left to wait for."""
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or meta.get("finalizers"):
            return False
        if resource is self._namespaces:
            return not obj["spec"].get("finalizers")
        return meta.get("deletionGracePeriodSeconds", 0) == 0

    # -- delete

    def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions
    ) -> tuple[Record, bool]:
        """The object's last or present state, and whether it is gone."""
        old = self.store.get(resource, namespace, name)
        obj = old.load()
        self._check_preconditions(resource, obj, options)
        meta = obj["metadata"]
        policy = options.policy or self.strategy(resource).default_policy
        finalizers = self._deletion_finalizers(meta, policy)
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        if resource is self._namespaces:
            self._terminate_namespace(obj)
        else:
            self._begin_deletion(resource, obj, options, bool(finalizers))
        gone = self._finished(resource, obj) or ("deletionTimestamp" not in meta and not finalizers)
        if options.dry_run:
            return old, gone
        if not gone:
            return self.store.replace(resource, old, obj), False
        if self.strategy(resource).graceful:
            # Two steps, as Kubernetes: watchers see the mark before the deletion.
            old = self.store.replace(resource, old, obj)
        return self.store.remove(resource, old, obj), True

    def _check_preconditions(self, resource: Resource, obj: Object, options: DeleteOptions) -> None:
        meta = obj["metadata"]
        for label, asked, actual in (
            ("UID", options.uid, meta["uid"]),
            ("ResourceVersion", options.version, meta["resourceVersion"]),
        ):
            if asked and asked != actual:
                why = (
                    f"Precondition failed: {label} in precondition: {asked}, {label} in object "
                    f"meta: {actual}"
                )
                raise conflict(resource, meta["name"], why)

    def _deletion_finalizers(self, meta: dict[str, Any], policy: str) -> list[str]:
        kept = meta.get("finalizers", [])
        if not policy:
            return kept
        wanted = _POLICIES[policy]
        kept = [f for f in kept if f not in (FOREGROUND, ORPHAN)]
        return [*kept, wanted] if wanted else kept

    def _terminate_namespace(self, obj: Object) -> None:
        obj["metadata"].setdefault("deletionTimestamp", now())
        obj["status"]["phase"] = "Terminating"

    def _begin_deletion(
        self, resource: Resource, obj: Object, options: DeleteOptions, held: bool
    ) -> None:
        strategy = self.strategy(resource)
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            self._shorten(meta, options)
        elif strategy.graceful or held:
            period = strategy.grace_period(obj, options.grace)
            meta["deletionTimestamp"] = _later(now(), period)
            meta["deletionGracePeriodSeconds"] = period
            if "generation" in meta:
                meta["generation"] += 1

    def _shorten(self, meta: dict[str, Any], options: DeleteOptions) -> None:
        before = meta.get("deletionGracePeriodSeconds", 0)
        if options.grace is not None and options.grace < before:
            meta["deletionTimestamp"] = _later(
                meta["deletionTimestamp"], max(options.grace, 0) - before
            )
            meta["deletionGracePeriodSeconds"] = max(options.grace, 0)

    # -- pods

    def bind(self, namespace: str, name: str, binding: Object, dry_run: bool = False) -> None:
        """Give a pod its node, as a scheduler asks."""
        target = binding.get("target", {})
        node = target.get("name", "")
        old = self.store.get(self._pods, namespace, name)
        pod = old.load()
        if target.get("kind", "Node") != "Node" or not node:
            raise bad_request("a binding must name a target of kind Node")
        uid = binding.get("metadata", {}).get("uid")
        if uid and uid != pod["metadata"]["uid"]:
            raise conflict(self._pods, name, f"Precondition failed: UID in precondition: {uid}")
        if pod["metadata"].get("deletionTimestamp"):
            why = f"pod {name} is being deleted, cannot be assigned to a host"
            raise conflict(self._pods, name, why)
        if pod["spec"].get("nodeName"):
            why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise conflict(self._pods, name, why)
        if pod["spec"].get("schedulingGates"):
            raise conflict(self._pods, name, f"pod {name} has non-empty .spec.schedulingGates")
        pod["spec"]["nodeName"] = node
        for field in ("labels", "annotations"):
            pod["metadata"].setdefault(field, {}).update(binding.get("metadata", {}).get(field, {}))
            if not pod["metadata"][field]:
                del pod["metadata"][field]
        _set_scheduled(pod)
        if not dry_run:
            self.store.replace(self._pods, old, pod)


def _set_scheduled(pod: Object) -> None:
    conditions = [c for c in pod["status"].get("conditions", []) if c.get("type") != "PodScheduled"]
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": now(),
    }
    pod["status"]["conditions"] = [*conditions, scheduled]
