"""The extension's REST API in a real Jupyter server: answers, refusals, and that its document
tells both."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tornado.web import RequestHandler

from gpucloud_labext import client
from gpucloud_labext.errors import LabError
from gpucloud_labext.handlers.routes import ROUTES
from gpucloud_labext.status import Bill

from .lab import SERVICE_TOKEN, Lab, Service, running
from .test_magics import LINE, USAGE

JOB = {"id": "train-1", "state": "running"}


@pytest.fixture(autouse=True)
def _answers(service: Service) -> None:
    other = {**LINE, "name": "jupyter-ada-old", "running": False, "cost": "99.00"}
    service.asked.clear()
    service.answers = {
        "api/usage": (200, USAGE),
        "api/usage/intervals": (200, {"lines": [other, LINE], "next": "", "currency": "EUR"}),
        "api/jobs": (200, {"jobs": [JOB], "next": ""}),
        "api/jobs/train-1": (200, JOB),
        "api/jobs/train-1/logs": (200, "[worker-0] epoch 1\n[worker-0] epoch 2\n"),
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server that no gpucloud has started."""
    with running(tmp_path_factory.mktemp("alone"), {}) as lab:
        yield lab


def test_status(lab: Lab) -> None:
    found = lab.api("status").json()
    assert set(found) == {
        *("user", "application", "team", "profile", "image", "gpus", "started"),
        *("uptime_seconds", "cost_so_far", "currency", "price_per_gpu_hour", "service"),
        *("activity", "s3"),
    }
    assert (found["user"], found["application"], found["team"]) == ("ada", "train", "vision")
    assert (found["gpus"], found["profile"]) == (1, "tensorflow")
    assert (found["cost_so_far"], found["currency"]) == ("1.23", "EUR")
    assert found["price_per_gpu_hour"] == "1.50"
    assert found["started"] == "2026-11-23T10:00:00Z"
    assert found["service"] == "ok"
    assert found["s3"] == {"bucket": "ada-bucket", "endpoint": "http://127.0.0.1:1"}


def test_gpus(lab: Lab) -> None:
    found = lab.api("gpus").json()
    assert [device["uuid"] for device in found["devices"]] == ["1"]
    assert found["devices"][0]["simulated"]


def test_usage_and_jobs_are_the_services_own_answers(lab: Lab, service: Service) -> None:
    assert lab.api("usage?group_by=app&month=2026-11&1790000000000").json() == USAGE
    assert service.asked == [
        ("GET", "api/usage?group_by=app&month=2026-11", f"token {SERVICE_TOKEN}")
    ]
    assert lab.api("jobs?state=running").json() == {"jobs": [JOB], "next": ""}
    assert lab.api("jobs/train-1").json() == JOB
    assert lab.api("jobs/train-1", "DELETE").json() == JOB
    logs = lab.api("jobs/train-1/logs?replica=worker-0&tail=2")
    assert logs.text == "[worker-0] epoch 1\n[worker-0] epoch 2\n"
    assert logs.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [line[:2] for line in service.asked[1:]] == [
        ("GET", "api/jobs?state=running"),
        ("GET", "api/jobs/train-1"),
        ("DELETE", "api/jobs/train-1"),
        ("GET", "api/jobs/train-1/logs?replica=worker-0&tail=2"),
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("usage?user=bob", 400, "unknown_parameter"),
        ("jobs?follow=1", 400, "unknown_parameter"),
        ("jobs/..", 404, None),
        ("jobs/%2e%2e", 404, "no_such_job"),
        ("jobs/a%2Fb", 404, "no_such_job"),
        ("jobs/" + "a" * 10_000, 404, "no_such_job"),
        ("jobs/nobodys", 404, "not_found"),
        ("jobs/nobodys/logs", 404, "not_found"),
    ],
)
def test_refusals(lab: Lab, service: Service, path: str, status: int, code: str | None) -> None:
    answer = lab.api(path)
    assert answer.status_code == status
    if code is not None:
        assert answer.json()["code"] == code
        assert set(answer.json()) == {"code", "message", "details"}
    if code != "not_found":
        assert service.asked == []


@pytest.mark.parametrize("refused", [400, 403, 409, 500, 503])
def test_what_the_service_refuses_is_refused_in_its_words(
    lab: Lab, service: Service, refused: int
) -> None:
    error = {"code": "some_code", "message": "Words.", "details": {"allowed": ["a"]}}
    service.answers["api/usage"] = (refused, error)
    answer = lab.api("usage")
    assert (answer.status_code, answer.json()) == (refused, error)


def test_a_token_that_the_service_does_not_know_is_not_the_browsers_login(
    lab: Lab, service: Service
) -> None:
    service.answers["api/usage"] = (401, {"code": "no_token", "message": "Who?", "details": {}})
    answer = lab.api("usage")
    assert (answer.status_code, answer.json()["code"]) == (502, "token_refused")
    service.answers["api/usage"] = (200, "<html>some proxy</html>")
    answer = lab.api("usage")
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_answer")


def test_without_a_service_the_rest_works(alone: Lab) -> None:
    for path in ("usage", "jobs", "jobs/a", "jobs/a/logs"):
        answer = alone.api(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "no_service"), path
    status = alone.api("status").json()
    assert "not started by gpucloud" in status["service"]
    assert status["cost_so_far"] is None
    assert status["uptime_seconds"] >= 0
    assert alone.api("gpus").json() == {"message": "No GPU in this profile", "devices": []}


async def test_a_service_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCLOUD_API_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t")
    with pytest.raises(LabError, match="cannot be reached") as caught:
        await client.service().request_async("GET", "api/usage")
    assert (caught.value.status, caught.value.code) == (503, "service_unavailable")
    with pytest.raises(LabError, match="cannot be reached"):
        client.service().request("GET", "api/usage")
    assert "cannot be reached" in (await Bill({}).read())["service"]


def test_the_document_and_the_table_tell_the_same(lab: Lab) -> None:
    found = lab.api("openapi.json").json()
    assert found["servers"] == [{"url": "/gpucloud/"}]
    told = {
        (path.removeprefix("/"), verb.upper())
        for path, verbs in found["paths"].items()
        for verb in verbs
        if verb != "parameters"
    }
    assert told == {
        (route.path.replace("...}", "}"), verb) for route in ROUTES for verb in route.verbs
    }
    for verbs in found["paths"].values():
        for verb, operation in verbs.items():
            assert verb == "parameters" or operation["summary"]


def test_every_handler_answers_the_verbs_of_the_table_and_no_others() -> None:
    for route in ROUTES:
        own = {
            verb
            for verb in ("GET", "POST", "PUT", "PATCH", "DELETE")
            if getattr(route.handler, verb.lower()) is not RequestHandler._unimplemented_method
        }
        assert own >= set(route.verbs), route.path
        if route.path.startswith("api/"):
            assert own == set(route.verbs), route.path


def test_the_paths_of_the_table_differ() -> None:
    patterns = [route.pattern for route in ROUTES]
    assert len(set(patterns)) == len(patterns)
    for route in ROUTES:
        assert re.compile(route.pattern)
