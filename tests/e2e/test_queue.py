"""All GPUs in use: words, a place in the queue, a start by itself, a cancel that leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cloud import Cloud, User, wait_for


@pytest.fixture
def holders(cloud: Cloud) -> Iterator[list[User]]:
    """Two users who hold all four GPUs."""
    users = [cloud.user(), cloud.user()]
    for user in users:
        user.request_start(profile="tensorflow", gpus="2")
    for user in users:
        wait_for(user.is_ready, f"{user.name} is ready")
    yield users


def words_of(user: User, wanted: str) -> str:
    """The first progress message with ``wanted`` in it."""
    for event in user.progress():
        if wanted in event["message"]:
            return str(event["message"])
    raise AssertionError(f"{wanted!r} was never said")


def test_a_full_cluster_is_told_in_words_and_starts_by_itself_later(
    cloud: Cloud, ada: User, bob: User, holders: list[User]
) -> None:
    assert ada.request_start(profile="tensorflow", gpus="1").status_code == 202
    assert words_of(ada, "queue") == (
        "Waiting for a free GPU: 4 of 4 are in use; your request is number 1 in the queue"
    )
    assert bob.request_start(profile="tensorflow", gpus="2").status_code == 202
    assert "2 free GPUs on one machine" in (said := words_of(bob, "queue"))
    assert "your request is number 2 in the queue" in said

    holders[0].stop()
    wait_for(ada.is_ready, "ada starts by herself")
    assert ada.run_code("import os; print(len(os.environ['CUDA_VISIBLE_DEVICES']))") == "1"

    bob.stop()  # a cancel of what still waits
    assert cloud.pods(bob.name) == []
    assert bob.is_stopped()


def test_a_cancelled_start_is_told_and_can_be_tried_again(
    cloud: Cloud, ada: User, holders: list[User]
) -> None:
    ada.request_start(profile="tensorflow", gpus="1")
    for event in ada.progress():  # the scheduler's raw text is only small print
        assert "nodes are available" not in event["message"]
        if "nodes are available" in event.get("html_message", ""):
            assert "queue" in event["message"]
            assert "<small" in event["html_message"]
            break
    ada.stop()
    assert cloud.pods(ada.name) == []
    ada.start(profile="cpu")
