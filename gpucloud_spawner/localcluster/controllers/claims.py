"""Claims and volumes: a volume for every claim whose class makes them, growth, protection of what
is in use, and the end of a volume with its claim.

The data is the kubelet's: to it a bound claim is a directory.
"""

from __future__ import annotations

from typing import Any

from ..client import ApiError, KubeClient, Obj, object_key, split_key
from ..events import EventRecorder
from ..informer import WorkQueue
from ..quantity import parse
from .informers import CLAIMS, CLASSES, PODS, VOLUMES, Informers

CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_BOUND = {
    "pv.kubernetes.io/bind-completed": "yes",
    "pv.kubernetes.io/bound-by-controller": "yes",
}
_WAITING = {"WaitForFirstConsumer": "waiting for first consumer to be created before binding"}


def claims_of(pod: Obj) -> list[str]:
    """The keys of the claims that a pod names."""
    namespace = pod["metadata"]["namespace"]
    sources = [v.get("persistentVolumeClaim") for v in pod["spec"].get("volumes", [])]
    return [f"{namespace}/{source['claimName']}" for source in sources if source]


class ClaimController:
    """Keys of its queue are ("claim", key) and ("volume", name)."""

    def __init__(self, client: KubeClient, informers: Informers, events: EventRecorder) -> None:
        self._client = client
        self._events = events
        self.queue: WorkQueue[tuple[str, str]] = WorkQueue(self._reconcile, name="claims")
        self._users: dict[str, set[str]] = {}
        self._claims = informers.on(CLAIMS, self._claim_changed)
        self._volumes = informers.on(VOLUMES, self._volume_changed)
        self._classes = informers.on(CLASSES, self._class_changed)
        informers.on(PODS, self._pod_changed)

    def _claim_changed(self, old: Obj | None, new: Obj | None) -> None:
        claim = new or old
        assert claim is not None
        self.queue.add(("claim", object_key(claim)))
        if new is None and claim["spec"].get("volumeName"):
            self.queue.add(("volume", claim["spec"]["volumeName"]))

    def _volume_changed(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self.queue.add(("volume", new["metadata"]["name"]))

    def _class_changed(self, old: Obj | None, new: Obj | None) -> None:
        for key, claim in self._claims.store.items():
            if not claim["spec"].get("volumeName"):
                self.queue.add(("claim", key))

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        uid = pod["metadata"]["uid"]
        for key in claims_of(pod):
            # A pod that has no node has not mounted anything, and will not get a claim that ends.
            users = self._users.setdefault(key, set())
            if new is not None and new["spec"].get("nodeName"):
                users.add(uid)
            else:
                users.discard(uid)
                self.queue.add(("claim", key))
            if not users:
                del self._users[key]

    async def _reconcile(self, key: tuple[str, str]) -> None:
        kind, name = key
        if kind == "volume":
            await self._reconcile_volume(name)
            return
        claim = self._claims.store.get(name)
        if claim is None:
            return
        if claim["metadata"].get("deletionTimestamp"):
            await self._let_go(claim, name)
        elif claim["spec"].get("volumeName"):
            await self._finish(claim)
        else:
            await self._provision(claim)

    async def _let_go(self, claim: Obj, key: str) -> None:
        finalizers = claim["metadata"].get("finalizers", [])
        if CLAIM_PROTECTION not in finalizers or self._users.get(key):
            return
        namespace, _ = split_key(key)
        pods = await self._client.list("pods", namespace)
        # The cache may lag behind a pod that was bound a moment ago: ask before it is too late.
        if any(key in claims_of(pod) and pod["spec"].get("nodeName") for pod in pods["items"]):
            return  # its event will bring us back
        await self._patch(CLAIMS, claim, {"metadata": _without(claim, CLAIM_PROTECTION)})

    async def _provision(self, claim: Obj) -> None:
        spec, meta = claim["spec"], claim["metadata"]
        name = spec.get("storageClassName", "")
        if not name:
            return  # asks for a volume that somebody makes by hand
        storage_class = self._classes.store.get(name)
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{name}" not found'
            self._tell(claim, "Warning", "ProvisioningFailed", message)
            return
        mode = storage_class.get("volumeBindingMode", "Immediate")
        if mode in _WAITING and SELECTED_NODE not in meta.get("annotations", {}):
            self._tell(claim, "Normal", mode, _WAITING[mode])
            return
        volume = f"pvc-{meta['uid']}"
        try:
            await self._client.create("persistentvolumes", _volume(volume, claim, storage_class))
            message = f"Successfully provisioned volume {volume}"
            self._tell(claim, "Normal", "ProvisioningSucceeded", message)
        except ApiError as error:
            if error.status != 409:
                raise
        annotations = {**_BOUND, "volume.kubernetes.io/storage-provisioner": _driver(storage_class)}
        patch = {"metadata": {"annotations": annotations}, "spec": {"volumeName": volume}}
        await self._patch(CLAIMS, claim, patch)

    async def _finish(self, claim: Obj) -> None:
        """A claim that has its volume is Bound, and as large as it asks to be."""
        volume = self._volumes.store.get(claim["spec"]["volumeName"])
        if volume is None:
            return  # its event will bring us back
        spec, status = claim["spec"], claim.get("status", {})
        wanted = spec["resources"]["requests"]["storage"]
        size = volume["spec"]["capacity"]["storage"]
        if parse(size) < parse(wanted):
            capacity = {"capacity": {"storage": wanted}}
            await self._patch(VOLUMES, volume, {"spec": capacity})
            size = wanted
        done = {
            "phase": "Bound",
            "accessModes": spec["accessModes"],
            "capacity": {"storage": size},
        }
        if {k: status.get(k) for k in done} != done:
            await self._patch(CLAIMS, claim, {"status": done}, "status")
        if volume.get("status", {}).get("phase") != "Bound":
            await self._patch(VOLUMES, volume, {"status": {"phase": "Bound"}}, "status")

    async def _reconcile_volume(self, name: str) -> None:
        volume = self._volumes.store.get(name)
        if volume is None:
            return
        reference = volume["spec"].get("claimRef")
        if reference is None:
            if volume.get("status", {}).get("phase") == "Pending":
                await self._patch(VOLUMES, volume, {"status": {"phase": "Available"}}, "status")
            await self._unprotect(volume)
            return
        key = f"{reference['namespace']}/{reference['name']}"
        if await self._exists(key, reference.get("uid", "")):
            self.queue.add(("claim", key))
            return
        if volume.get("status", {}).get("phase") != "Released":
            await self._patch(VOLUMES, volume, {"status": {"phase": "Released"}}, "status")
            return  # the change brings us back
        policy = volume["spec"].get("persistentVolumeReclaimPolicy")
        if policy == "Delete" and not volume["metadata"].get("deletionTimestamp"):
            await self._client.delete("persistentvolumes", name, uid=volume["metadata"]["uid"])
        await self._unprotect(volume)

    async def _exists(self, key: str, uid: str) -> bool:
        claim = self._claims.store.get(key)
        if claim is None:  # the cache may lag behind a claim that was just made
            namespace, name = split_key(key)
            try:
                claim = await self._client.get("persistentvolumeclaims", name, namespace)
            except ApiError as error:
                if error.status != 404:
                    raise
                return False
        return not uid or bool(claim["metadata"]["uid"] == uid)

    async def _unprotect(self, volume: Obj) -> None:
        meta = volume["metadata"]
        if meta.get("deletionTimestamp") and VOLUME_PROTECTION in meta.get("finalizers", []):
            await self._patch(VOLUMES, volume, {"metadata": _without(volume, VOLUME_PROTECTION)})

    async def _patch(self, path: str, obj: Obj, patch: Obj, subresource: str = "") -> None:
        """A patch of the version that was looked at: a newer one is looked at again instead."""
        meta = obj["metadata"]
        metadata = {**patch.get("metadata", {}), "uid": meta["uid"]}
        if "finalizers" in metadata or "spec" in patch:
            metadata["resourceVersion"] = meta["resourceVersion"]
        try:
            await self._client.patch(
                path,
                meta["name"],
                {**patch, "metadata": metadata},
                meta.get("namespace"),
                subresource=subresource,
            )
        except ApiError as error:
            if error.status != 404:
                raise

    def _tell(self, claim: Obj, kind: str, reason: str, message: str) -> None:
        self._events.record(
            {**claim, "kind": "PersistentVolumeClaim", "apiVersion": "v1"}, kind, reason, message
        )


def _without(obj: Obj, finalizer: str) -> Obj:
    kept = [f for f in obj["metadata"].get("finalizers", []) if f != finalizer]
    return {"finalizers": kept}


def _driver(storage_class: Obj) -> str:
    return str(storage_class["provisioner"])


def _volume(name: str, claim: Obj, storage_class: Obj) -> Obj:
    spec, meta = claim["spec"], claim["metadata"]
    size = spec["resources"]["requests"]["storage"]
    body: dict[str, Any] = {
        "capacity": {"storage": size},
        "accessModes": spec["accessModes"],
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "storageClassName": storage_class["metadata"]["name"],
        "volumeMode": spec.get("volumeMode", "Filesystem"),
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
        "csi": {"driver": _driver(storage_class), "volumeHandle": name},
    }
    annotations = {"pv.kubernetes.io/provisioned-by": _driver(storage_class)}
    return {"metadata": {"name": name, "annotations": annotations}, "spec": body}
