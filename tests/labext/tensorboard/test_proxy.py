"""The way to a TensorBoard: logged in, with `_xsrf`, complete, and no sign of a person."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websocket

from ..contents.servers import TOKEN
from .conftest import Server

SCALARS = "data/plugin/timeseries/timeSeries"


@pytest.fixture(scope="module")
def server(shared: Server) -> Server:
    """One TensorBoard for all of these tests."""
    return shared


@pytest.fixture(scope="module")
def board(server: Server) -> Iterator[dict[str, Any]]:
    board = server.open("runs")
    server.data(board, "data/runs")
    yield board
    server.stop_all()


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def browser(server: Server) -> Iterator[httpx.Client]:
    """Logged in by a cookie, as a page is."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        client.get(f"/tree?token={TOKEN}")
        assert client.cookies.get("_xsrf")
        yield client


def paths(board: dict[str, Any]) -> list[str]:
    page = board["url"]
    api = f"/gpucloud/api/tensorboards/{board['id']}"
    return [page, page.rstrip("/"), page + "data/runs", "/gpucloud/api/tensorboards", api]


@pytest.mark.parametrize("token", [None, "of-somebody-else"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_without_the_users_token_there_is_nothing(
    server: Server, board: dict[str, Any], stranger: httpx.Client, token: str | None, method: str
) -> None:
    if token:
        stranger.headers["Authorization"] = f"token {token}"
    for path in [*paths(board), "/gpucloud/tensorboard/no-such-id/"]:
        answer = stranger.request(method, path)
        if answer.status_code == 302:
            assert answer.headers["Location"].startswith("/login?"), path
        else:
            # jupyter-server answers OPTIONS of its API itself, with nothing in it
            allowed = (204, 403, 405) if method == "OPTIONS" else (403, 405)
            assert answer.status_code in allowed, f"{method} {path}"
        assert b"train" not in answer.content
    assert [model["id"] for model in server.listed()] == [board["id"]]


@pytest.mark.parametrize(("token", "status"), [("", 403), ("wrong", 403), (TOKEN, 400)])
def test_websockets_are_refused(
    server: Server, board: dict[str, Any], token: str, status: int
) -> None:
    header = {"Authorization": f"token {token}"} if token else {}
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(
            f"ws://127.0.0.1:{server.port}{board['url']}data/runs", header=header, timeout=30
        )
    assert refused.value.status_code == status


def test_a_cookie_alone_changes_nothing(
    server: Server, board: dict[str, Any], browser: httpx.Client
) -> None:
    """A page of another site sends the cookie, but cannot know `_xsrf`."""
    body = {"requests": json.dumps([{"plugin": "scalars", "tag": "loss/train"}])}
    refused = [
        browser.post(board["url"] + SCALARS, data=body),
        browser.post(board["url"] + SCALARS, data=body, headers={"X-XSRFToken": "guessed"}),
        browser.post("/gpucloud/api/tensorboards", json={"logdir": "runs-2"}),
        browser.delete(f"/gpucloud/api/tensorboards/{board['id']}"),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    assert [model["logdir"] for model in server.listed()] == ["runs"]
    xsrf = {"X-XSRFToken": browser.cookies["_xsrf"]}
    good = browser.post(board["url"] + SCALARS, data=body, headers=xsrf)
    assert good.status_code == 200
    assert len(good.json()[0]["runToSeries"]["one/train"]) == 20


def test_the_page_asks_for_nothing_outside_of_its_prefix(
    server: Server, board: dict[str, Any]
) -> None:
    page = server.http.get(board["url"])
    assert "url(/" not in page.text
    assert page.text.count("url(font-roboto/") > 50
    assert page.text.index("gpucloud-xsrf.js") < page.text.index("index.js")
    script = server.http.get(board["url"] + "gpucloud-xsrf.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    font = page.text.partition("url(font-roboto/")[2].partition(")")[0]
    found = server.http.get(board["url"] + "font-roboto/" + font)
    assert (found.status_code, found.content[:4]) == (200, b"wOF2")
    assert "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]


def test_a_page_brings_the_cookie_that_its_script_sends(
    server: Server, board: dict[str, Any], stranger: httpx.Client
) -> None:
    """Opened directly, without JupyterLab before it."""
    stranger.get(f"{board['url']}?token={TOKEN}", follow_redirects=True)
    body = {"requests": json.dumps([{"plugin": "scalars", "tag": "loss/train"}])}
    xsrf = {"X-XSRFToken": stranger.cookies["_xsrf"]}
    assert stranger.post(board["url"] + SCALARS, data=body, headers=xsrf).status_code == 200


def test_redirects_stay_below_the_prefix(server: Server, board: dict[str, Any]) -> None:
    slash = server.http.get(board["url"].rstrip("/") + "?darkMode=true")
    assert (slash.status_code, slash.headers["Location"]) == (302, board["url"] + "?darkMode=true")
    old = server.http.get(board["url"] + "graphs")
    assert (old.status_code, old.headers["Location"]) == (302, board["url"])


def test_what_tensorboard_sends_arrives_unchanged(server: Server, board: dict[str, Any]) -> None:
    big = server.http.get(board["url"] + "index.js")
    assert len(big.text) > 5_000_000
    assert big.headers["Content-Encoding"] == "gzip"
    plain = server.http.get(board["url"] + "index.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == big.content
    head = server.http.head(board["url"] + "index.js")
    assert (head.status_code, head.content) == (200, b"")
    download = server.http.get(
        board["url"] + "data/plugin/scalars/scalars",
        params={"run": "one/train", "tag": "loss/train", "format": "csv"},
    )
    assert len(download.text.splitlines()) == 21
    assert server.http.get(board["url"] + "data/no such thing?").status_code == 404


def test_odd_addresses_reach_tensorboard_and_nobody_else(
    server: Server, board: dict[str, Any]
) -> None:
    """Sent raw: a client library would tidy them up."""
    for odd in ("@127.0.0.1:80/", ":80/", "..%2f..%2fapi", "%2e%2e/", "//127.0.0.1/", "?@x"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", board["url"] + odd, headers={"Authorization": f"token {TOKEN}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status in (200, 302, 404), odd
        if answer.status == 200:
            assert b"TensorBoard" in body or b"tensorboard" in body, odd
        if answer.status == 302:
            assert answer.headers["Location"].startswith(board["url"]), odd


def test_tensorboard_learns_no_credentials(server: Server, board: dict[str, Any]) -> None:
    [process] = [
        p for p in server.processes() if "gpucloud_labext.tensorboard.serve" in p.cmdline()
    ]
    environment = process.environ()
    assert "JUPYTERHUB_API_TOKEN" not in environment
    assert environment["CUDA_VISIBLE_DEVICES"] == "-1"


def test_an_open_page_is_no_activity(server: Server, board: dict[str, Any]) -> None:
    """What the server would tell the hub, and a person's presence, stay as they were."""

    def seen() -> tuple[Any, Any]:
        last = server.http.get("/api/status").json()["last_activity"]
        return last, server.http.get("/gpucloud/api/activity").json().get("last_input")

    before = seen()
    for _ in range(5):
        server.data(board, "data/runs")
        server.http.post(board["url"] + SCALARS, data={"requests": "[]"})
        server.http.get(board["url"] + "index.js")
        server.listed()
    assert seen() == before


def test_a_body_is_passed_on(server: Server, board: dict[str, Any]) -> None:
    many = [{"plugin": "scalars", "tag": f"no-{n}"} for n in range(3000)]
    answer = server.http.post(board["url"] + SCALARS, data={"requests": json.dumps(many)})
    assert answer.status_code == 200
    assert len(answer.json()) == 3000


def test_the_projectors_page_is_mended_too(server: Server, board: dict[str, Any]) -> None:
    path = board["url"] + "data/plugin/projector/projector_binary.html"
    page = server.http.get(path)
    assert page.status_code == 200
    assert "url(/" not in page.text
    font = page.text.partition("url(../../../font-roboto/")[2].partition(")")[0]
    assert server.http.get(board["url"] + "font-roboto/" + font).content[:4] == b"wOF2"
    assert '<script src="../../../gpucloud-xsrf.js">' in page.text
