"""The extension's REST API in a real Jupyter server: answers, refusals, and that its document
tells both."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from tornado.web import RequestHandler

from gpucloud_labext import client
from gpucloud_labext.errors import LabError
from gpucloud_labext.handlers.jobs import launch_from
from gpucloud_labext.handlers.routes import ROUTES
from gpucloud_labext.status import Bill, status

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


def test_a_log_that_breaks_off_does_not_look_complete(lab: Lab, service: Service) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"8\r\nepoch 1\n\r\n")

    service.answers["api/jobs/train-1/logs"] = (200, broken)
    with lab.http.stream("GET", "/gpucloud/api/jobs/train-1/logs?follow=1") as answer:
        assert next(answer.iter_lines()) == "epoch 1"
    with (
        pytest.raises(httpx.RemoteProtocolError),
        lab.http.stream("GET", "/gpucloud/api/jobs/train-1/logs?follow=1") as answer,
    ):
        answer.read()


def test_who_leaves_a_silent_log_leaves_nothing_behind(lab: Lab, service: Service) -> None:
    said, left = b"8\r\nepoch 1\n\r\n", threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(said)
        handler.connection.settimeout(60)
        if handler.connection.recv(1) == b"":
            left.set()

    service.answers["api/jobs/train-1/logs"] = (200, silent)
    with lab.http.stream("GET", "/gpucloud/api/jobs/train-1/logs?follow=1") as answer:
        lines = answer.iter_lines()  # kept: httpx hangs up when it is let go
        assert next(lines) == "epoch 1"
        assert not left.is_set()
    assert left.wait(30)


@pytest.mark.parametrize("script", ["a\0b.py", "x" * 300 + ".py"])
def test_a_script_that_no_disk_can_have_is_refused(tmp_path: Path, script: str) -> None:
    with pytest.raises(LabError, match="cannot be opened") as caught:
        launch_from(tmp_path, {"script": script})
    assert caught.value.status == 400


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


async def test_several_pages_may_ask_at_once_what_it_costs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUCLOUD_API_URL", service.url)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", SERVICE_TOKEN)
    bill = Bill({"HOSTNAME": "jupyter-ada", "JUPYTERHUB_SERVER_NAME": "train"})
    for told in await asyncio.gather(*(bill.read() for _ in range(5))):
        assert status(told, datetime.now(UTC), {})["cost_so_far"] == "1.23"
    assert len(service.asked) == 1


async def test_tokens_go_through_no_proxy(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    asked = client.Client(service.url, SERVICE_TOKEN, "The service")
    assert asked.request("GET", "api/usage") == USAGE
    assert await asked.request_async("GET", "api/usage") == USAGE


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
