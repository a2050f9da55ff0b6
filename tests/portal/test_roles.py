"""Every route with every role: who gets in follows from the table of routes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.web import RequestHandler

from gpucloud_spawner.portal.accounts import Accounts, HubSilent
from gpucloud_spawner.portal.auth import Need
from gpucloud_spawner.portal.routes import ROUTES, Route
from gpucloud_spawner.portal.settings import HubAccess

from .conftest import Ask, Site

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CALLS = [
    (route, method)
    for route in ROUTES
    for method in route.verbs
    if route.path not in ("oauth_callback", "static/")
]
# what each role holds
RIGHTS = {
    "nobody": set[Need](),
    "without-access": set[Need](),
    "ada": {Need.ACCESS},
    "vera": {Need.ACCESS},
    "dora": {Need.ACCESS},  # manages the accounts of a group on the hub's admin page
    "namesake": {Need.ACCESS},
    "prometheus": {Need.METRICS},
    "auditor": {Need.ACCESS, Need.ADMIN},
    "admin": {Need.ACCESS, Need.ADMIN, Need.METRICS},
}


# questions about somebody: a service without rights is nobody, one with rights has to say who
PERSONAL = {
    "api/usage": 200,
    "api/usage/intervals": 200,
    "api/budgets/check": 200,
    "api/applications": 400,
    "api/applications/{name}": 400,
    "api/s3": 400,
    "api/jobs": 200,
}


def name_of(call: Any) -> str:
    return f"{call[1]} {call[0].path or 'page'}" if isinstance(call, tuple) else str(call)


@pytest.mark.parametrize("who", RIGHTS)
@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_who_gets_in(ask: Ask, who: str, call: tuple[Route, str]) -> None:
    route, method = call
    need = route.verbs[method].need
    # refused for its content by whoever gets so far, so that nothing is done
    body = {"json": {"no such field": 1}} if method == "POST" else {}
    answer = ask(who, route.path, method, **body)
    if need is Need.NOTHING or need in RIGHTS[who]:
        if who == "namesake" and method == "GET" and route.path in PERSONAL:
            assert answer.status_code == 403
        elif who == "auditor" and method == "GET" and route.path in PERSONAL:
            assert answer.status_code == PERSONAL[route.path]
        elif "{" in route.path:
            assert answer.status_code == 404  # there is none of that name
        else:
            assert answer.status_code == (400 if method == "POST" else 200), answer.text
    elif who == "nobody" and route.is_page:
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/hub/api/oauth2/authorize?")
    else:
        assert answer.status_code == (401 if who == "nobody" else 403)
    if answer.status_code >= 400 and not route.is_page:
        assert set(answer.json()) == {"code", "message", "details"}


@pytest.mark.parametrize("route", [r for r in ROUTES if r.path != "static/"], ids=lambda r: r.path)
def test_what_is_not_declared_cannot_be_called(ask: Ask, route: Route) -> None:
    for method in METHODS:
        if method not in route.verbs and route.path != "oauth_callback":
            answer = ask("admin", route.path, method)
            assert answer.status_code == 405, method
            assert answer.headers["Allow"] == ", ".join(route.verbs)
    implemented = {
        method
        for method in METHODS
        if getattr(route.handler, method.lower()) is not getattr(RequestHandler, method.lower())
    }
    assert implemented == set(route.verbs)


# the four questions about others, and what each role is answered
USAGE = [
    ("ada", "user=ada", 200),
    ("ada", "user=bob", 403),
    ("ada", "user=ada&user=bob", 403),
    ("ada", "team=vision", 403),
    ("ada", "team=vision&user=ada", 200),
    ("vera", "team=vision", 200),
    ("vera", "team=vision&user=ada", 200),
    ("vera", "user=ada", 403),  # also what ada does for others
    ("vera", "team=vision&team=speech", 403),
    ("vera", "team=", 403),
    ("dora", "team=speech", 403),
    ("dora", "team=vision", 403),
    ("bob", "user=ada", 403),
    ("bob", "user=", 403),
    ("admin", "user=ada", 200),
    ("admin", "team=speech", 200),
    ("auditor", "user=ada", 200),
    ("namesake", "user=ada", 403),
    ("without-access", "user=ada", 403),
]


@pytest.mark.parametrize("path", ["api/usage", "api/usage/intervals"])
@pytest.mark.parametrize(("who", "filters", "status"), USAGE)
def test_who_sees_whose_usage(ask: Ask, path: str, who: str, filters: str, status: int) -> None:
    answer = ask(who, f"{path}?{filters}&month=2025-10")
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["code"] == "forbidden"


def users_of(answer: Any) -> set[str]:
    return {row["user"] for row in answer.json()["rows"]}


def test_without_a_filter_everybody_sees_himself_and_administrators_all(ask: Ask) -> None:
    path = "api/usage?group_by=user&month=2025-10"
    assert users_of(ask("ada", path)) == {"ada"}
    assert users_of(ask("vera", path)) == {"vera"}
    assert users_of(ask("dora", path)) == set()
    assert users_of(ask("admin", path)) == {"ada", "bob", "vera"}
    assert users_of(ask("auditor", path)) == {"ada", "bob", "vera"}


def test_a_team_administrator_sees_what_was_billed_to_the_team(ask: Ask) -> None:
    answer = ask("vera", "api/usage?group_by=user,team&team=vision&month=2025-10").json()
    assert [(r["user"], r["gpu_seconds"]) for r in answer["rows"]] == [
        ("ada", 7200),
        ("vera", 3600),
    ]


def test_a_team_administrator_named_by_rest_is_one(site: Site) -> None:
    """The property is the hub's; the service follows it within a minute, without a restart."""
    import httpx

    from tests.e2e.cloud import wait_for

    token = site.tokens["admin"]
    hub = f"{site.cloud.url}/hub/api/groups/speech"
    headers = {"Authorization": f"token {token}"}
    assert site.ask("bob", "api/usage?team=speech").status_code == 403
    properties = {"gpucloud_admins": ["bob"]}
    answer = httpx.put(f"{hub}/properties", headers=headers, json=properties)
    assert answer.status_code == 200, answer.text
    wait_for(
        lambda: site.ask("bob", "api/usage?team=speech").status_code == 200, "bob is one", every=1
    )


def test_only_administrators_see_who_has_the_gpus(ask: Ask) -> None:
    mine = ask("ada", "api/gpus").json()
    assert {node["node"]: node["capacity"] for node in mine["nodes"]} == {"node-0": 2, "node-1": 2}
    assert mine["products"][0]["capacity"] == 4
    assert all("used_by" not in node for node in mine["nodes"])
    assert all("used_by" in node for node in ask("admin", "api/gpus").json()["nodes"])


def test_only_administrators_see_who_changed_prices(ask: Ask) -> None:
    assert all("actor" not in line for line in ask("ada", "api/prices").json()["prices"])
    assert {line["actor"] for line in ask("auditor", "api/prices").json()["prices"]} >= {
        "site file"
    }


@pytest.mark.parametrize(
    ("who", "scope", "seen"),
    [
        ("ada", "own", {"ada", "vision"}),
        ("bob", "own", {"bob"}),
        ("ada", "team", set()),
        ("vera", "team", {"vision"}),
        ("ada", "all", None),
        ("vera", "all", None),
    ],
)
def test_who_sees_which_budgets(ask: Ask, who: str, scope: str, seen: set[str] | None) -> None:
    answer = ask(who, f"api/budgets?scope={scope}")
    if seen is None:
        assert answer.status_code == 403
    else:
        assert {budget["name"] for budget in answer.json()["budgets"]} == seen


def test_administrators_see_all_budgets(ask: Ask) -> None:
    budgets = ask("admin", "api/budgets?scope=all").json()["budgets"]
    by_name = {(budget["scope"], budget["name"]): budget for budget in budgets}
    assert by_name["team", "vision"]["limit_gpu_hours"] == "150"
    assert 80 < float(by_name["user", "ada"]["used_gpu_hours"]) < 100


@pytest.mark.parametrize(
    ("who", "question", "status"),
    [
        ("ada", "", 200),
        ("ada", "user=ada&team=vision&gpus=2", 200),
        ("ada", "user=bob", 403),
        ("ada", "team=speech", 403),
        ("bob", "team=vision", 403),
        ("admin", "user=ada&team=speech", 200),
        ("ada", "gpus=-1", 400),
        ("ada", "gpus=1000001", 400),
        ("ada", "gpus=many", 400),
    ],
)
def test_who_may_ask_about_a_start(ask: Ask, who: str, question: str, status: int) -> None:
    assert ask(who, f"api/budgets/check?{question}").status_code == status


async def test_the_service_may_see_who_is_a_user_and_others_may_not(site: Site) -> None:
    def accounts(token: str) -> Accounts:
        return Accounts(HubAccess(site.service.environment["JUPYTERHUB_API_URL"], token))

    names = {"ada", "bob", "nobody-of-that-name", "../users/ada", "a/b?c"}
    assert await accounts(site.service.token).gone(names) == names - {"ada", "bob"}
    with pytest.raises(HubSilent, match="lacks the scope read:users:name"):
        await accounts(site.tokens["auditor"]).gone(names)
    with pytest.raises(HubSilent, match="403"):
        await accounts("no token of anybody").gone(names)
