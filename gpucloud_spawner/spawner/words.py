"""What a starting pod is doing, in words for its owner. Pure: pod and event dicts in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from ..model.pods import (
    PULL_WAITS,
    Pod,
    Trouble,
    container_status,
    is_scheduled,
    start_trouble,
    unschedulable_reason,
)

Event = Mapping[str, Any]

NOTEBOOK_CONTAINER = "notebook"  # KubeSpawner's name for it


@dataclass(frozen=True)
class Step:
    """One line of progress: percent, the words, and Kubernetes' own words in small print."""

    percent: int
    message: str
    detail: str = ""

    def as_event(self) -> dict[str, Any]:
        """The shape of JupyterHub's progress API."""
        event: dict[str, Any] = {"progress": self.percent, "message": self.message}
        if self.detail:
            small = f"<small class='text-muted fs-6'>{escape(self.detail)}</small>"
            event["html_message"] = f"{escape(self.message)}<br>{small}"
        return event


def with_notices(event: Mapping[str, Any], notices: Iterable[str]) -> dict[str, Any]:
    """JupyterHub's progress event that says ``notices`` first."""
    said = list(notices)
    marked = [escape(notice) for notice in said]
    return {
        **event,
        "message": "\n".join([*said, str(event["message"])]),
        "html_message": "<br>".join([*marked, str(event["html_message"])]),
    }


def notebook_status(pod: Pod) -> Mapping[str, Any]:
    """The status of the notebook container; empty before the kubelet has written one."""
    return container_status(pod, NOTEBOOK_CONTAINER)


def describe(pod: Pod | None, events: Iterable[Event], waiting_words: str) -> Step:
    """Where the start of ``pod`` stands.

    ``waiting_words`` says why no node was found, for people (from the GPU inventory); its events
    are those of this pod, oldest first.
    """
    if pod is None:
        return Step(5, "Preparing your volume and asking the cluster for a machine")
    if not is_scheduled(pod):
        detail = unschedulable_reason(pod)
        if not detail:
            return Step(10, "Looking for a machine")
        if "persistentvolumeclaim" in detail.lower() or "volume" in detail.lower():
            return Step(15, "Waiting for your volume; it is not ready yet", detail)
        return Step(15, waiting_words or "Waiting for a machine with enough free resources", detail)
    if (pod.get("status") or {}).get("phase") == "Running" and notebook_status(pod).get("ready"):
        return Step(80, "JupyterLab is starting")
    return _describe_scheduled(pod, list(events))


def _describe_scheduled(pod: Pod, events: list[Event]) -> Step:
    waiting = (notebook_status(pod).get("state") or {}).get("waiting") or {}
    if waiting.get("reason") in PULL_WAITS:
        return Step(40, "Pulling the image failed; trying again", waiting.get("message", ""))
    for event in reversed(events):
        reason, text = event.get("reason"), str(event.get("message") or "")
        if reason == "Pulling":
            image = notebook_status(pod).get("image") or pod["spec"]["containers"][0]["image"]
            return Step(40, f"Pulling image {image} (the first time on a machine takes longer)")
        if reason in ("FailedMount", "FailedAttachVolume"):
            return Step(30, "Attaching your volume; it is not ready yet", text)
        if reason in ("Pulled", "Created"):
            return Step(60, "Starting your container")
        if reason == "Started":
            return Step(70, "Your container has started")
        if reason == "SuccessfulAttachVolume":
            return Step(35, "Your volume is attached")
    return Step(25, f"Attaching your volume on {pod['spec']['nodeName']}")


def failure_of(pod: Pod) -> Trouble | None:
    """Why ``pod`` will not come up, or None while there is hope."""
    status = pod.get("status") or {}
    container = notebook_status(pod)
    ended = (container.get("state") or {}).get("terminated") or {}
    if status.get("phase") in ("Failed", "Succeeded"):
        return Trouble(_why_ended(status, ended))
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return Trouble(_why_ended(status, last))
    return start_trouble(container)


def _why_ended(status: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        return (
            "The server needed more memory than its profile allows (OOMKilled). Choose a larger one"
        )
    if ended:
        code = ended.get("exitCode")
        words = f"The server ended during its start with exit code {code} ({ended.get('reason')})"
        return f"{words}: {ended['message']}" if ended.get("message") else words
    reason = status.get("reason") or "Failed"
    return (
        f"The pod failed ({reason}): {status.get('message') or 'no further word from Kubernetes'}"
    )
