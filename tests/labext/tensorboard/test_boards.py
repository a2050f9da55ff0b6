"""TensorBoards over REST: start, reuse, list, stop; limits; what fails says why."""

from __future__ import annotations

import signal
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from ..contents.servers import wait_for
from . import runs
from .conftest import IDLE_SECONDS, LIMIT, Server

SERVE = "gpucloud_labext.tensorboard.serve"


def wait_running(server: Server, board: dict[str, Any]) -> dict[str, Any]:
    """The model of a TensorBoard that is no longer starting."""
    model: dict[str, Any] = wait_for(
        lambda: (m := server.model(board["id"]))["state"] != "starting" and m, "settled TensorBoard"
    )
    return model


def test_one_starts_and_is_reused_listed_and_stopped(server: Server) -> None:
    answer = server.boards("POST", json={"logdir": "runs"})
    assert answer.status_code == 201
    board = answer.json()
    assert board["state"] == "starting"
    assert board["url"] == f"/gpucloud/tensorboard/{board['id']}/"
    # its address waits for it
    assert "one/train" in server.data(board, "data/runs")
    again = server.boards("POST", json={"logdir": "./runs/"})
    assert (again.status_code, again.json()["id"]) == (200, board["id"])
    assert server.open("runs-2")["id"] != board["id"]

    [first, second] = server.listed()
    assert [first["logdir"], second["logdir"]] == ["runs", "runs-2"]
    assert first["state"] == "running"
    assert 30e6 < first["memory_bytes"] < 400e6
    assert first["last_used"] >= first["started"]
    assert server.boards("DELETE", board["id"]).status_code == 204
    assert [model["logdir"] for model in server.listed()] == ["runs-2"]
    gone = server.http.get(board["url"])
    assert (gone.status_code, gone.json()["code"]) == (404, "no_such_tensorboard")
    assert server.boards("DELETE", board["id"]).status_code == 404


def test_what_a_training_adds_is_shown(server: Server) -> None:
    runs.scalars(server.home / "growing" / "a", 5)
    board = server.open("growing")
    wait_for(lambda: server.steps(board, "a") == [0, 1, 2, 3, 4], "chart")
    runs.scalars(server.home / "growing" / "a", 5, start=5)
    runs.scalars(server.home / "growing" / "b", 1)
    wait_for(lambda: server.steps(board, "b") == [0], "chart of a new run")


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_tensorflow_is_not_loaded_for_charts(server: Server) -> None:
    """It would take 400 MB and seconds, and look for GPUs."""
    board = server.open("runs-2")
    wait_for(lambda: server.steps(board, "."), "chart")
    server.data(board, "data/plugins_listing")
    [process] = [p for p in server.processes() if SERVE in p.cmdline()]
    assert not [m.path for m in process.memory_maps() if "/tensorflow/" in m.path]


def test_it_may_be_opened_before_the_training(server: Server) -> None:
    board = server.open("later")
    assert server.data(board, "data/runs") == []
    runs.scalars(server.home / "later", 3)
    wait_for(lambda: server.steps(board, ".") == [0, 1, 2], "chart")


def test_two_requests_at_once_start_one(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: server.boards("POST", json={"logdir": "runs-2"}), range(8))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(server.listed()) == 1


def test_200_starts_keep_the_limit_and_leave_no_process(server: Server) -> None:
    def start(number: int) -> tuple[int, Any]:
        answer = server.boards("POST", json={"logdir": f"many/{number}"})
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(200)))
    assert sorted({status for status, _ in answers}) == [201, 409]
    assert [status for status, _ in answers].count(201) == LIMIT
    refused = next(body for status, body in answers if status == 409)
    assert refused["code"] == "too_many_tensorboards"
    assert refused["details"]["limit"] == LIMIT
    assert len(server.listed()) == LIMIT
    # stopped in the middle of their start
    server.stop_all()
    assert server.listed() == []
    wait_for(lambda: not server.processes(), "end of all processes")
    assert server.boards("POST", json={"logdir": "many/1"}).status_code == 201


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "missing_field"),
        ({"logdir": 1}, 400, "bad_value"),
        ({"logdir": "runs", "port": 6006}, 400, "unknown_field"),
        ({"logdir": "runs", "host": "169.254.169.254"}, 400, "unknown_field"),
        ({"logdir": "../x"}, 400, "outside_home"),
        ({"logdir": "/etc"}, 400, "outside_home"),
        ({"logdir": "x" * 10_000}, 400, "too_long"),
        ({"logdir": "s3://other/runs"}, 403, "not_your_bucket"),
        ({"logdir": "--logdir=/etc"}, 201, None),  # a folder of this name, never an option
    ],
)
def test_bad_requests_are_refused(
    server: Server, body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = server.boards("POST", json=body)
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    if status == 201:
        assert answer.json()["logdir"] == body["logdir"]
        assert server.data(answer.json(), "data/runs") == []


def test_one_that_dies_says_so_and_can_be_started_again(server: Server) -> None:
    board = wait_running(server, server.open("runs"))
    [process] = [p for p in server.processes() if SERVE in p.cmdline()]
    process.send_signal(signal.SIGKILL)
    failed = wait_for(
        lambda: (m := server.model(board["id"]))["state"] == "failed" and m, "failed TensorBoard"
    )
    assert "memory" in failed["reason"]
    page = server.http.get(board["url"], headers={"Accept": "text/html"})
    assert page.status_code == 502
    assert "memory" in page.text
    answer = server.boards("POST", json={"logdir": "runs"})
    assert answer.status_code == 201
    assert [model["state"] for model in server.listed()] == ["starting"]


def test_one_that_cannot_start_shows_its_last_lines(server: Server) -> None:
    board = wait_running(server, server.open("s3://nowhere/"))
    assert board["state"] == "failed"
    assert any("'nowhere' does not exist" in line for line in board["log"])
    page = server.http.get(board["url"], headers={"Accept": "text/html"})
    assert "&#x27;nowhere&#x27; does not exist" in page.text
    # a failed one takes no room
    for name in ("a", "b", "c"):
        assert server.boards("POST", json={"logdir": name}).status_code == 201


def test_nobody_else_on_the_host_reaches_it(server: Server) -> None:
    """Neither its socket nor the port that TensorBoard's fast reader listens on."""
    wait_running(server, server.open("runs"))
    processes = server.processes()
    [serving] = [p for p in processes if SERVE in p.cmdline()]
    words = serving.cmdline()
    path = Path(words[words.index("--socket") + 1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in list(path.parents)[:2]] == [0o700] * 2
    own_network = Path("/proc/self/ns/net").readlink()
    for process in processes:
        proc = Path(f"/proc/{process.pid}")
        if (proc / "ns/net").readlink() == own_network:
            listening = [c for c in process.net_connections("inet") if c.status == "LISTEN"]
            assert not listening
        else:
            for port in listening_ports(proc):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), timeout=5)


def listening_ports(proc: Path) -> list[int]:
    """Of the network that the process is in."""
    lines = (proc / "net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return [int(field[1].partition(":")[2], 16) for field in fields if field[3] == "0A"]


# --- their end ---


def test_an_idle_one_is_stopped(own_server: Server) -> None:
    board = own_server.open("runs")
    assert own_server.data(board, "data/runs") == ["."]
    looked = time.monotonic()
    while time.monotonic() < looked + 2 * IDLE_SECONDS:  # looked at: it stays
        assert own_server.data(board, "data/runs") == ["."]
        own_server.listed()  # a list is no look
        time.sleep(IDLE_SECONDS / 20)
    wait_for(lambda: own_server.listed() == [], "end of the idle TensorBoard")
    wait_for(lambda: not own_server.processes(), "end of its processes")


def test_all_end_with_a_killed_server(own_server: Server) -> None:
    """That they end with one that is stopped, the fixture of the shared one sees."""
    own_server.data(own_server.open("runs"), "data/runs")
    family = own_server.processes()
    [words] = [p.cmdline() for p in family if SERVE in p.cmdline()]
    folder = Path(words[words.index("--socket") + 1]).parent
    assert folder.is_dir()
    own_server.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not folder.exists()
    assert not folder.parent.exists()
