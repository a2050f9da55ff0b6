"""What a pod's status says about its way to a running container. Pure: pod dicts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]

# Waiting reasons that do not heal by waiting.
# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
_HOPELESS_WAITS = {"InvalidImageName", "ErrImageNeverPull", "RunContainerError"}
PULL_WAITS = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}


@dataclass(frozen=True)
class Trouble:
    """Why a container does not start."""

    message: str
    patient: bool = False  # True: only when it lasts (a registry may come back)


def is_scheduled(pod: Pod) -> bool:
    return bool(pod["spec"].get("nodeName"))


def condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty where it has none of that kind."""
    for found in (pod.get("status") or {}).get("conditions") or []:
        if found["type"] == kind:
            known: Mapping[str, Any] = found
            return known
    return {}


def unschedulable_reason(pod: Pod) -> str:
    """kube-scheduler's own words why the pod has no node yet; empty where it has not tried."""
    scheduled = condition(pod, "PodScheduled")
    return str(scheduled.get("message", "")) if scheduled.get("status") == "False" else ""


def container_status(pod: Pod, container: str) -> Mapping[str, Any]:
    """The status of one container; empty before the kubelet has written one."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status["name"] == container:
            found: Mapping[str, Any] = status
            return found
    return {}


def start_trouble(container: Mapping[str, Any]) -> Trouble | None:
    """Why a container that waits (its status is given) will not start; None while there is hope."""
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, text = waiting.get("reason"), waiting.get("message", "")
    if reason in _HOPELESS_WAITS:
        return Trouble(f"The container cannot start ({reason}): {text}")
    if reason in PULL_WAITS or reason == "CreateContainerConfigError":
        return Trouble(f"The container cannot start ({reason}): {text}", patient=True)
    return None
