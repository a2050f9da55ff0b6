"""The four states of an application, from pods as Kubernetes shows them."""

from __future__ import annotations

from typing import Any

import pytest

from gpucloud_spawner.model.states import State, state_of

QUEUED = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient gpu"}


def pod(phase: str, state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase, **more}
    if state is not None:
        status["containerStatuses"] = [{"name": "notebook", "state": state}]
    return {"metadata": {}, "spec": {"nodeName": "n"}, "status": status}


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (None, State("stopped")),
        (pod("Running", {"running": {}}), State("running")),
        (
            {**pod("Pending", conditions=[QUEUED]), "spec": {}},
            State("pending", "0/2 nodes: Insufficient gpu"),
        ),
        ({**pod("Pending"), "spec": {}}, State("pending", "It waits for a machine")),
        (pod("Pending"), State("pending", "It is starting")),
        (
            pod("Pending", {"waiting": {"reason": "ContainerCreating"}}),
            State("pending", "ContainerCreating"),
        ),
        (
            pod("Running", {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}),
            State("pending", "back-off"),
        ),
        (
            pod("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            State("failed", "OOMKilled (exit code 137)"),
        ),
        (pod("Failed", reason="Evicted", message="low on disk"), State("failed", "low on disk")),
        (pod("Succeeded"), State("stopped", "The server ended by itself")),
        (
            {**pod("Running", {"running": {}}), "metadata": {"deletionTimestamp": "now"}},
            State("running", "It is stopping"),
        ),
    ],
)
def test_states(given: dict[str, Any] | None, state: State) -> None:
    assert state_of(given) == state
