"""A Jupyter server with the extension, room for few TensorBoards, and an S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ..contents import servers
from . import runs

LIMIT = 3
IDLE_SECONDS = 4.0  # of the server that a test may kill


class Server(servers.Jupyter):
    """`jupyter server`, asked for TensorBoards."""

    def __init__(self, folder: Path, environment: dict[str, str], **traits: Any) -> None:
        settings = {"max_running": LIMIT, "reload_seconds": 1, "s3_poll_seconds": 0.5, **traits}
        config = "".join(f"c.TensorBoards.{k} = {v!r}\n" for k, v in settings.items())
        super().__init__(folder, environment, config)

    def boards(self, method: str = "GET", id: str = "", **options: Any) -> httpx.Response:
        path = "/gpucloud/api/tensorboards" + (f"/{id}" if id else "")
        return self.http.request(method, path, **options)

    def open(self, logdir: str) -> dict[str, Any]:
        """The model of a TensorBoard of ``logdir``."""
        answer = self.boards("POST", json={"logdir": logdir})
        assert answer.status_code in (200, 201), answer.text
        model: dict[str, Any] = answer.json()
        return model

    def model(self, id: str) -> dict[str, Any]:
        model: dict[str, Any] = self.boards(id=id).json()
        return model

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.boards().json()["tensorboards"]
        return found

    def stop_all(self) -> None:
        for model in self.listed():
            assert self.boards("DELETE", model["id"]).status_code == 204

    def data(self, board: dict[str, Any], path: str) -> Any:
        """What the page of a TensorBoard asks for."""
        answer = self.http.get(board["url"] + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def steps(self, board: dict[str, Any], run: str, tag: str = "loss") -> list[int]:
        """The steps of a chart; none while it is not there."""
        answer = self.http.get(
            board["url"] + "data/plugin/scalars/scalars", params={"run": run, "tag": tag}
        )
        return [point[1] for point in answer.json()] if answer.status_code == 200 else []

    def processes(self) -> list[psutil.Process]:
        """Of TensorBoards: none but those are started by these tests."""
        assert self.process.child is not None
        return psutil.Process(self.process.child.pid).children(recursive=True)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Store]:
    with servers.running(servers.rclone_store(tmp_path_factory.mktemp("tb-s3"))) as store:
        yield store


@pytest.fixture(scope="session")
def shared(store: servers.Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tb"), store.environment())
    runs.everything(server.home / "runs" / "one")
    runs.scalars(server.home / "runs-2")
    try:
        server.start()
        yield server
        server.data(server.open("runs"), "data/runs")
        family = server.processes()
        server.stop()
        _, alive = psutil.wait_procs(family, timeout=30)
        assert family and not alive
    finally:
        server.close()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """The shared server; nothing is left of what a test started."""
    yield shared
    shared.stop_all()
    servers.wait_for(lambda: not shared.processes(), "end of all TensorBoards")


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill; TensorBoards may not idle for long on it."""
    server = Server(tmp_path, {}, idle_seconds=IDLE_SECONDS)
    runs.scalars(server.home / "runs")
    try:
        server.start()
        yield server
    finally:
        server.close()
