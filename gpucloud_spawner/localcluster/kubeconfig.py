"""Writing the kubeconfig through which every part of the local cluster, kubectl and the hub reach
its API server. Reading a kubeconfig is the Kubernetes client's work.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from .apiserver.pki import write_private

NAME = "gpucloud-local"


def write_kubeconfig(
    path: Path, url: str, ca: Path, token: str, namespace: str = "default"
) -> None:
    """One cluster, one user, one context; readable by its owner only because of the token."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": NAME,
                "cluster": {
                    "server": url,
                    "certificate-authority-data": base64.b64encode(ca.read_bytes()).decode(),
                },
            }
        ],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [
            {"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}
        ],
        "current-context": NAME,
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
