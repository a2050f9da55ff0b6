"""What exists in every new cluster: system namespaces, storage classes, the kubelets' token."""

from __future__ import annotations

import base64
from typing import Any

from .kubelets import TOKEN_SECRET
from .operations import Operations
from .resources import Resource, served
from .store import Object
from .volumes import DEFAULT_CLASS

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_PROVISIONER = "gpucloud.io/local-directory"


def ensure_defaults(operations: Operations, kubelet_token: str) -> None:
    for name in NAMESPACES:
        _ensure(operations, served("namespaces"), "", {"metadata": {"name": name}})
    classes = served("storageclasses", "storage.k8s.io")
    for name, notes in (("ceph-rbd", {}), ("standard", {DEFAULT_CLASS: "true"})):
        storage_class: dict[str, Any] = {
            "metadata": {"name": name, "annotations": dict(notes)},
            "provisioner": _PROVISIONER,
            "allowVolumeExpansion": True,
        }
        _ensure(operations, classes, "", storage_class)
    namespace, name = TOKEN_SECRET
    token = base64.b64encode(kubelet_token.encode()).decode()
    secret = {"metadata": {"name": name}, "data": {"token": token}}
    _ensure(operations, served("secrets"), namespace, secret)


def _ensure(operations: Operations, resource: Resource, namespace: str, obj: Object) -> None:
    if operations.store.find(resource, namespace, obj["metadata"]["name"]) is None:
        operations.create(resource, namespace, obj)
