"""Telling the API how a pod is: when it has changed, and again when somebody else has overruled it.

What is told is computed in `status`.
"""

from __future__ import annotations

from typing import Any

from ..client import ApiError, KubeClient

Obj = dict[str, Any]


class Reporter:
    """The status of one pod as the API was last told."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._sent: Obj | None = None
        self._version = 0

    def is_news(self, pod: Obj, status: Obj) -> bool:
        """Whether this has to be sent. Keeps the transition times of what has not changed."""
        sent = self._sent
        if sent is None or self._overruled(pod, sent):
            return True
        for condition in status["conditions"]:
            same = (c for c in sent["conditions"] if c["type"] == condition["type"])
            old: Obj = next(same, {})
            if old.get("status") == condition["status"]:
                condition["lastTransitionTime"] = old["lastTransitionTime"]
        return any(sent.get(k) != v for k, v in status.items() if k != "startTime")

    def _overruled(self, pod: Obj, sent: Obj) -> bool:
        """The node controller marks the pods of a silent node unready: a node that is heard again
        has to say that they are well. Versions older than our own word are only late."""
        if int(pod["metadata"]["resourceVersion"]) <= self._version:
            return False
        present = pod.get("status") or {}
        theirs = {c["type"]: c["status"] for c in present.get("conditions") or []}
        same = all(theirs.get(c["type"]) == c["status"] for c in sent["conditions"])
        return not same or present.get("phase") != sent["phase"]

    async def send(self, pod: Obj, status: Obj) -> None:
        """A pod that is gone, or another one of its name, is not told about."""
        meta = pod["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            stored = await self._client.patch_status("pods", meta["name"], patch, meta["namespace"])
            self._version = int(stored["metadata"]["resourceVersion"])
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        self._sent = status
