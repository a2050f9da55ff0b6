"""What is not on offer is refused, whichever way it is asked for, and creates nothing."""

from __future__ import annotations

from typing import Any

import pytest

from .cloud import Cloud, User, wait_for

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"profile": "tensorflow", "gpus": "3"}, "Allowed: 0, 1, 2"),
    ({"profile": "tensorflow", "image": "evil.example/miner:1"}, "Allowed: notebook"),
    ({"profile": "vision"}, "not offered to you"),
    ({"profile": "tensorflow", "privileged": "true"}, "Unknown option 'privileged'"),
    ({"profile": "tensorflow", "gpus": 1}, "must be a string"),
    ({"profile": "tensorflow", "team": "vision"}, "Team 'vision' is not offered"),
]


def nothing_of(cloud: Cloud, user: User) -> bool:
    return cloud.pods(user.name) == [] and cloud.claims(user.name) == []


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_by_rest(cloud: Cloud, ada: User, options: dict[str, Any], said: str) -> None:
    answer = ada.request_start("lab", **options)
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert nothing_of(cloud, ada)


@pytest.mark.parametrize(("options", "said"), REFUSED[:4])
def test_by_link(cloud: Cloud, ada: User, options: dict[str, Any], said: str) -> None:
    query = {f"opt-{key}": value for key, value in options.items()}
    page = ada.browser.get(f"/hub/spawn/{ada.name}", params=query)
    assert page.status_code == 400
    assert said.replace("'", "&#39;") in page.text
    assert nothing_of(cloud, ada)


@pytest.mark.parametrize(("options", "said"), REFUSED[:4])
def test_by_form(cloud: Cloud, ada: User, options: dict[str, Any], said: str) -> None:
    prefix = f"profile-option-{options['profile']}--"
    form = {k if k == "profile" else prefix + k: v for k, v in options.items()}
    ada.browser.get(f"/hub/spawn/{ada.name}")
    page = ada.browser.post(
        f"/hub/spawn/{ada.name}", params={"_xsrf": ada.xsrf}, data=form, follow_redirects=False
    )
    assert page.status_code == 400
    assert said.replace("'", "&#39;") in page.text
    assert nothing_of(cloud, ada)


def test_by_saved_options_of_a_server_that_was_never_started(cloud: Cloud, ada: User) -> None:
    body = {"user_options": {"profile": "tensorflow", "gpus": "99"}}
    assert ada.api("PUT", "/servers/lab", json=body).status_code == 201
    answer = ada.api("POST", "/servers/lab")
    assert answer.status_code == 400
    assert "Allowed: 0, 1, 2" in answer.json()["message"]
    assert nothing_of(cloud, ada)


def test_by_options_changed_while_it_was_stopped(cloud: Cloud, ada: User) -> None:
    ada.start("lab", profile="cpu")
    ada.stop("lab")
    body = {"user_options": {"profile": "vision"}}
    assert ada.api("PATCH", "/servers/lab", json=body).status_code == 200
    answer = ada.api("POST", "/servers/lab")
    assert answer.status_code == 400
    assert cloud.pods(ada.name) == []
    # the options that last worked are back, so that the owner is not stuck
    assert ada.model("lab")["user_options"] == {"profile": "cpu"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "h100"}, "No machine of this cluster carries the GPU"),
        ({"profile": "huge", "gpus": "16"}, "no machine has more than 2. Choose at most 2."),
    ],
)
def test_what_can_never_fit_fails_at_once(
    cloud: Cloud, ada: User, options: dict[str, str], said: str
) -> None:
    answer = ada.request_start(**options)
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    assert nothing_of(cloud, ada)


def test_a_server_keeps_its_name(ada: User) -> None:
    ada.start("lab", profile="cpu")
    ada.stop("lab")
    answer = ada.api("PATCH", "/servers/lab", json={"name": "other"})
    assert answer.status_code == 400
    assert "display name" in answer.json()["message"]


def test_a_crash_at_the_start_is_told_at_once_with_its_last_lines(cloud: Cloud, ada: User) -> None:
    ada.request_start(profile="crash", gpus="1")
    last = list(ada.progress())[-1]
    assert last["failed"]
    assert "exit code 3" in last["message"]
    assert "boom: no licence found" in last["message"]
    wait_for(lambda: cloud.pods(ada.name) == [], "no pod is left")


def test_an_image_that_is_nowhere_is_told_and_leaves_nothing(cloud: Cloud, ada: User) -> None:
    ada.request_start(profile="no-image")
    messages = [event["message"] for event in ada.progress()]
    assert any("Pulling the image failed" in m for m in messages)
    assert "registry.invalid/none:1" in messages[-1]
    wait_for(lambda: cloud.pods(ada.name) == [], "no pod is left")


def test_the_hub_survives_more_refusals_than_its_failure_limit(cloud: Cloud, ada: User) -> None:
    for _ in range(4):
        assert ada.request_start(profile="tensorflow", gpus="9").status_code == 400
    for _ in range(2):
        ada.request_start("again", profile="crash")
        assert list(ada.progress("again"))[-1]["failed"]
        wait_for(lambda: ada.is_stopped("again"), "the failed start is over")
    ada.start(profile="cpu")
