"""What a bill must say: the pods' own status, read by hand, and what the service says."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx
import yaml

from .cloud import Cloud, User


class PodWatch:
    """Follows all pods through the Kubernetes API and keeps the last state of each, by uid."""

    def __init__(self, cloud: Cloud) -> None:
        config = yaml.safe_load(cloud.kubeconfig.read_text())
        self._url = config["clusters"][0]["cluster"]["server"]
        self._token = config["users"][0]["user"]["token"]
        self._path = f"/api/v1/namespaces/{cloud.namespace}/pods"
        self.last: dict[str, dict[str, Any]] = {}
        self.deleted: set[str] = set()
        version = cloud.kube(self._path)["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._follow, args=(version,), daemon=True)
        self._thread.start()

    def _follow(self, version: str) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "3600"}
        url = self._url + self._path
        quiet = httpx.Timeout(60, read=None)  # nothing may happen for long
        with (
            suppress(httpx.TransportError),  # the cluster was stopped
            httpx.stream(
                "GET", url, params=query, headers=headers, verify=False, timeout=quiet
            ) as stream,
        ):
            for line in stream.iter_lines():
                event = json.loads(line)
                uid = event["object"]["metadata"]["uid"]
                self.last[uid] = event["object"]
                if event["type"] == "DELETED":
                    self.deleted.add(uid)

    def seconds_of(self, user: str) -> int:
        """GPU-seconds of the deleted pods of ``user``, by hand from their status."""
        total = 0
        for uid in self.deleted:
            pod = self.last[uid]
            if pod["metadata"]["annotations"]["gpucloud.io/user"] != user:
                continue
            [start] = [
                c["lastTransitionTime"]
                for c in pod["status"]["conditions"]
                if (c["type"], c["status"]) == ("PodScheduled", "True")
            ]
            [container] = pod["status"]["containerStatuses"]
            end = container["state"]["terminated"]["finishedAt"]
            gpus = container_gpus(pod)
            seconds = datetime.fromisoformat(end) - datetime.fromisoformat(start)
            total += gpus * int(seconds.total_seconds())
        return total


def container_gpus(pod: dict[str, Any]) -> int:
    [container] = pod["spec"]["containers"]
    return int(container["resources"]["limits"]["nvidia.com/gpu"])


def ask(user: User, path: str, **arguments: Any) -> httpx.Response:
    url = f"{user.cloud.url}/services/gpucloud/{path}"
    headers = {"Authorization": f"token {user.token}"}
    return httpx.get(url, headers=headers, timeout=30, **arguments)


def billed(user: User, asked_by: User | None = None) -> tuple[int, bool]:
    """GPU-seconds, and whether something still runs; (-1, ...) while the service is away."""
    answer = ask(asked_by or user, "api/usage", params={"user": user.name})
    if answer.status_code == 503:
        return -1, True
    total = answer.json()["total"]
    return total["gpu_seconds"], total["running"]
