from typing import Any

import pytest

from gpucloud_spawner.spawner.words import describe, failure_of, with_notices


def pod(
    *, node: str = "", phase: str = "Pending", reason: str = "", **container: Any
) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase}
    if reason:
        status["conditions"] = [{"type": "PodScheduled", "status": "False", "message": reason}]
    if container:
        status["containerStatuses"] = [{"name": "notebook", "image": "img:1", **container}]
    spec: dict[str, Any] = {"containers": [{"image": "img:1"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": "p"}, "spec": spec, "status": status}


def event(reason: str, message: str = "") -> dict[str, str]:
    return {"reason": reason, "message": message}


def test_scheduler_text_is_only_small_print_below_words() -> None:
    raw = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    step = describe(pod(reason=raw), [], "Waiting for a free GPU: 4 of 4 are in use")
    assert step.message == "Waiting for a free GPU: 4 of 4 are in use"
    assert raw not in step.as_event()["message"]
    assert f"<small class='text-muted fs-6'>{raw}</small>" in step.as_event()["html_message"]


def test_what_kubernetes_says_is_escaped() -> None:
    step = describe(pod(reason="<script>alert(1)</script>"), [], "")
    assert "<script>" not in step.as_event()["html_message"]


@pytest.mark.parametrize(
    ("seen", "events", "words"),
    [
        (None, [], "Preparing your volume"),
        (pod(), [], "Looking for a machine"),
        (pod(reason="0/2 nodes: cpu"), [], "Waiting for a machine with enough free resources"),
        (pod(node="n0"), [], "Attaching your volume on n0"),
        (pod(node="n0"), [event("FailedMount", "rbd busy")], "Attaching your volume; it is not"),
        (pod(node="n0"), [event("Pulling")], "Pulling image img:1"),
        (pod(node="n0"), [event("Pulling"), event("Pulled")], "Starting your container"),
        (pod(node="n0", phase="Running", ready=True, state={}), [], "JupyterLab is starting"),
    ],
)
def test_each_state_has_its_words(seen: Any, events: list[Any], words: str) -> None:
    assert describe(seen, events, "").message.startswith(words)


def test_progress_never_goes_back_over_a_normal_start() -> None:
    order = [
        (None, []),
        (pod(), []),
        (pod(reason="full"), []),
        (pod(node="n0"), []),
        (pod(node="n0"), [event("Pulling")]),
        (pod(node="n0"), [event("Created")]),
        (pod(node="n0"), [event("Started")]),
        (pod(node="n0", phase="Running", ready=True, state={}), []),
    ]
    percents = [describe(seen, events, "").percent for seen, events in order]
    assert percents == sorted(percents)


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return pod(node="n0", state={"waiting": {"reason": reason, "message": "m"}}, **more)


@pytest.mark.parametrize(
    ("seen", "said", "patient"),
    [
        (pod(node="n0", phase="Failed", state={"terminated": {"exitCode": 3}}), "exit code 3", 0),
        (
            pod(node="n0", phase="Failed", state={"terminated": {"reason": "OOMKilled"}}),
            "more memory",
            False,
        ),
        (pod(node="n0", phase="Failed"), "The pod failed (Failed)", False),
        (waiting("InvalidImageName"), "InvalidImageName", False),
        (waiting("ImagePullBackOff"), "ImagePullBackOff", True),
        (waiting("CreateContainerConfigError"), "CreateContainerConfigError", True),
        (
            waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1}}),
            "exit code 1",
            False,
        ),
    ],
)
def test_what_cannot_come_up_is_a_failure_with_its_reason(
    seen: Any, said: str, patient: bool
) -> None:
    failure = failure_of(seen)
    assert failure is not None
    assert said in failure.message
    assert failure.patient == bool(patient)


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_what_is_on_its_way_is_no_failure(reason: str) -> None:
    assert failure_of(waiting(reason)) is None
    assert failure_of(pod()) is None


def test_what_the_owner_should_know_is_told_with_the_readiness() -> None:
    ready = {"progress": 100, "ready": True, "message": "Server ready", "html_message": "<a>x</a>"}
    assert with_notices(ready, []) == ready
    told = with_notices(ready, ["80 % of <b>team</b>", "No S3."])
    assert told["message"] == "80 % of <b>team</b>\nNo S3.\nServer ready"
    assert told["html_message"] == "80 % of &lt;b&gt;team&lt;/b&gt;<br>No S3.<br><a>x</a>"
    assert (told["progress"], told["ready"]) == (100, True)
