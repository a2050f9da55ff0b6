"""Who gets in: the table of routes is walked without a login, with a foreign token, and with a
browser's cookie but no `_xsrf`."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from gpucloud_labext.handlers.routes import ROUTES, Route

from .contents.servers import TOKEN
from .lab import SERVICE_TOKEN, Lab, Service
from .test_api import _answers  # noqa: F401 - the same answers of the service

CALLS = [(route, verb) for route in ROUTES for verb in route.verbs]


def name_of(call: Any) -> str:
    return f"{call[1]} {call[0].path}" if isinstance(call, tuple) else str(call)


def address(lab: Lab, route: Route) -> str:
    return f"{lab.url}/gpucloud/" + re.sub(r"\{\w+(\.\.\.)?\}", "train-1", route.path)


@pytest.mark.parametrize("login", [{}, {"Authorization": "token somebody-elses"}], ids=str)
@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_nobody_gets_in_without_the_servers_login(
    lab: Lab, service: Service, call: tuple[Route, str], login: dict[str, str]
) -> None:
    route, verb = call
    for method in {verb, "GET", "POST", "PUT", "PATCH", "DELETE"}:
        answer = httpx.request(method, address(lab, route), headers=login, timeout=30)
        if method in route.verbs:
            assert answer.status_code in (302, 403), (method, answer.text)
        else:
            assert answer.status_code in (302, 403, 405), (method, answer.text)
        if answer.status_code == 302:
            assert "/login" in answer.headers["Location"]
        elif route.path.startswith("api/"):
            assert set(answer.json()) == {"code", "message", "details"}
    assert service.asked == []


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Any:
    """Logged in by cookie, as a person."""
    with httpx.Client(base_url=lab.url, timeout=30, follow_redirects=True) as client:
        client.get("/login")
        form = {"password": TOKEN, "_xsrf": client.cookies["_xsrf"]}
        assert client.post("/login", data=form).status_code == 200
        assert client.get("/api/status").status_code == 200
        yield client


@pytest.mark.parametrize(
    "call", [call for call in CALLS if call[1] not in ("GET", "HEAD")], ids=name_of
)
def test_a_foreign_page_cannot_use_a_persons_cookie(
    lab: Lab, service: Service, browser: httpx.Client, call: tuple[Route, str]
) -> None:
    route, verb = call
    answer = browser.request(verb, address(lab, route))
    assert answer.status_code == 403, answer.text
    assert "_xsrf" in answer.text
    assert service.asked == []
    headers = {"X-XSRFToken": browser.cookies["_xsrf"]}
    answer = browser.request(verb, address(lab, route), headers=headers)
    assert answer.status_code != 403, answer.text


@pytest.mark.parametrize("call", [call for call in CALLS if call[1] == "GET"], ids=name_of)
def test_no_answer_holds_a_token(lab: Lab, browser: httpx.Client, call: tuple[Route, str]) -> None:
    answer = browser.get(address(lab, call[0]))
    for secret in (SERVICE_TOKEN, TOKEN):
        assert secret not in answer.text
        assert secret not in str(answer.headers)


def test_a_foreign_pages_script_reads_nothing(lab: Lab, browser: httpx.Client) -> None:
    headers = {"Origin": "https://evil.example.com", "Sec-Fetch-Site": "cross-site"}
    answer = browser.get("/gpucloud/api/status", headers=headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
