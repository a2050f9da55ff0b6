"""Owner references: what an owner that is gone leaves behind is deleted, in the asked order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from ..client import ApiError, KubeClient, Obj, object_key, split_key
from ..informer import WorkQueue
from .informers import Informers, Kind

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_NOT_COLLECTED = ("/api/v1/events",)


class Owner(Enum):
    HERE = auto()
    GONE = auto()
    WAITING = auto()  # ends in the foreground: its dependents go first


@dataclass(frozen=True)
class _Node:
    kind: Kind
    key: str
    owners: frozenset[str]


class GarbageCollector:
    """Keys of its queue are uids. The graph is fed by the informers of all kinds."""

    def __init__(self, client: KubeClient, informers: Informers, kinds: list[Kind]) -> None:
        self._client = client
        self._informers = informers
        self.queue: WorkQueue[str] = WorkQueue(self._reconcile, name="garbage")
        self._nodes: dict[str, _Node] = {}
        self._dependents: dict[str, set[str]] = {}
        self._kinds = {(kind.api_version, kind.name): kind for kind in kinds}
        for kind in kinds:
            if kind.path not in _NOT_COLLECTED:
                informers.on(kind.path, partial(self._changed, kind))

    # -- the graph

    def _changed(self, kind: Kind, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        uid = obj["metadata"]["uid"]
        before = self._nodes.pop(uid, None)
        owners = frozenset(o["uid"] for o in obj["metadata"].get("ownerReferences", []))
        for owner in (before.owners if before else frozenset()) - owners | (
            owners if new is None else frozenset()
        ):
            self._unlink(owner, uid)
        if new is None:
            for dependent in self._dependents.get(uid, ()):
                self.queue.add(dependent)
            return
        self._nodes[uid] = _Node(kind, object_key(new), owners)
        for owner in owners:
            self._dependents.setdefault(owner, set()).add(uid)
        held = {FOREGROUND, ORPHAN} & set(new["metadata"].get("finalizers", []))
        if owners or (held and new["metadata"].get("deletionTimestamp")):
            self.queue.add(uid)

    def _unlink(self, owner: str, uid: str) -> None:
        dependents = self._dependents.get(owner, set())
        dependents.discard(uid)
        if not dependents:
            self._dependents.pop(owner, None)
        if owner in self._nodes:
            self.queue.add(owner)  # it may have waited for this one

    def _object(self, uid: str) -> tuple[Kind, Obj] | None:
        node = self._nodes.get(uid)
        obj = None if node is None else self._informers[node.kind.path].store.get(node.key)
        if node is None or obj is None or obj["metadata"]["uid"] != uid:
            return None
        return node.kind, obj

    # -- the work

    async def _reconcile(self, uid: str) -> None:
        found = self._object(uid)
        if found is None:
            return
        kind, obj = found
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp"):
            await self._judge(kind, obj)
        elif ORPHAN in meta.get("finalizers", []):
            await self._orphan(kind, obj)
        elif FOREGROUND in meta.get("finalizers", []):
            await self._finish_foreground(kind, obj)

    async def _judge(self, kind: Kind, obj: Obj) -> None:
        """Delete a dependent none of whose owners is left."""
        owners = obj["metadata"].get("ownerReferences", [])
        states = [await self._state(owner, obj["metadata"].get("namespace")) for owner in owners]
        if not owners or all(state is Owner.HERE for state in states):
            return
        kept = [o for o, s in zip(owners, states, strict=True) if s is Owner.HERE]
        if kept:
            await self._patch(kind, obj, {"ownerReferences": kept})
            return
        uid = obj["metadata"]["uid"]
        waited_for = Owner.WAITING in states and self._dependents.get(uid)
        await self._delete(kind, obj, "Foreground" if waited_for else "Background")

    async def _state(self, owner: Obj, namespace: str | None) -> Owner:
        found = self._object(owner["uid"])
        meta = found[1]["metadata"] if found else await self._read(owner, namespace)
        if meta is None:
            return Owner.GONE
        if meta.get("deletionTimestamp") and FOREGROUND in meta.get("finalizers", []):
            return Owner.WAITING
        return Owner.HERE

    async def _read(self, owner: Obj, namespace: str | None) -> Obj | None:
        """The metadata of an owner that the caches do not know, None where it is gone."""
        kind = self._kinds.get((owner["apiVersion"], owner["kind"]))
        if kind is None:
            return {}  # a kind that is not served here: not ours to judge
        try:
            obj = await self._client.get(
                kind.path, owner["name"], namespace if kind.namespaced else None
            )
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return obj["metadata"] if obj["metadata"]["uid"] == owner["uid"] else None

    async def _finish_foreground(self, kind: Kind, owner: Obj) -> None:
        uid = owner["metadata"]["uid"]
        blocked = False
        for dependent_uid in tuple(self._dependents.get(uid, ())):
            found = self._object(dependent_uid)
            if found is None:
                continue
            meta = found[1]["metadata"]
            references = [o for o in meta.get("ownerReferences", []) if o["uid"] == uid]
            blocked = blocked or any(o.get("blockOwnerDeletion") for o in references)
            if not meta.get("deletionTimestamp"):
                self.queue.add(dependent_uid)
        if not blocked:
            await self._release(kind, owner, FOREGROUND)

    async def _orphan(self, kind: Kind, owner: Obj) -> None:
        uid = owner["metadata"]["uid"]
        for dependent_uid in tuple(self._dependents.get(uid, ())):
            found = self._object(dependent_uid)
            if found is not None:
                owners = found[1]["metadata"].get("ownerReferences", [])
                kept = [o for o in owners if o["uid"] != uid]
                await self._patch(*found, {"ownerReferences": kept})
        await self._release(kind, owner, ORPHAN)

    async def _release(self, kind: Kind, obj: Obj, finalizer: str) -> None:
        kept = [f for f in obj["metadata"].get("finalizers", []) if f != finalizer]
        await self._patch(kind, obj, {"finalizers": kept})

    async def _patch(self, kind: Kind, obj: Obj, metadata: Obj) -> None:
        meta = obj["metadata"]
        # Of the version that was looked at: a list in a merge patch replaces the whole list.
        known = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        namespace, name = split_key(object_key(obj))
        try:
            patch = {"metadata": {**metadata, **known}}
            await self._client.patch(kind.path, name, patch, namespace)
        except ApiError as error:
            if error.status != 404:
                raise

    async def _delete(self, kind: Kind, obj: Obj, policy: str) -> None:
        namespace, name = split_key(object_key(obj))
        uid = obj["metadata"]["uid"]
        try:
            await self._client.delete(kind.path, name, namespace, uid=uid, propagation=policy)
        except ApiError as error:
            if error.status not in (404, 409):  # gone, or another one of the same name
                raise
