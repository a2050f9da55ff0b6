"""Activity that tells the truth: silent work counts, an open page does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.cloud import wait_for

from .lab import Kernel, Lab, terminal_socket

# What an open JupyterLab asks by itself, every few seconds to every few minutes.
POLLED = (
    "/api/kernels?1790000000000",
    "/api/sessions?1790000000000",
    "/api/terminals?1790000000000",
    "/api/kernelspecs",
    "/api/me",
    "/api/contents/?content=1&hash=0",
    "/api/contents/work.ipynb?content=0&hash=0",
    "/api/contents/work.ipynb?type=notebook&content=0&hash=0",
    "/lab/api/workspaces",
    "/gpucloud/api/status",
    "/gpucloud/api/gpus",
    "/gpucloud/api/activity",
)


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    lab.put("work.ipynb", "{}")
    yield
    for kernel in lab.http.get("/api/kernels").json():
        lab.http.delete(f"/api/kernels/{kernel['id']}")
    for terminal in lab.http.get("/api/terminals").json():
        lab.http.delete(f"/api/terminals/{terminal['name']}")
    wait_for(lambda: not lab.activity()["busy"], "nothing works any more")


def _work(kernel: Kernel, end: Path) -> str:
    """Something that goes on, silently, until there is a file ``end``; the request's id."""
    kernel.run("1")  # what a start of a kernel does is over
    wait_for(lambda: not kernel.lab.activity()["busy"], "the kernel is idle")
    code = f"import os, time\nwhile not os.path.exists({str(end)!r}): time.sleep(0.05)"
    request = kernel.execute(code)
    wait_for(lambda: kernel.lab.activity()["busy"], "the kernel works")
    return request


def test_a_silent_kernel_counts_for_as_long_as_it_works(lab: Lab, tmp_path: Path) -> None:
    with lab.kernel() as kernel:
        request = _work(kernel, tmp_path / "end")
        found = lab.activity()
        assert found["reasons"] == ["work.ipynb runs"]
        assert found["kernels"][0]["busy"]
        assert found["kernels"][0]["path"] == "work.ipynb"
        # nobody asks and nothing is printed, and yet the server has more to report each time
        before = lab.last_activity()
        wait_for(lambda: lab.last_activity() > before, "activity is reported", timeout=15)
        assert lab.activity()["busy"]
        (tmp_path / "end").touch()
        list(kernel.messages(request))
        wait_for(lambda: not lab.activity()["busy"], "the kernel is idle")
        before = lab.last_activity()
        _polls(lab, rounds=3)
        assert lab.last_activity() == before
        assert lab.activity()["last_activity"][:19] == before[:19]


def test_an_open_page_that_only_polls_is_no_activity(lab: Lab) -> None:
    before, seen = lab.last_activity(), lab.activity()["person"]["last_seen"]
    _polls(lab, rounds=4)
    assert lab.last_activity() == before
    assert lab.activity()["person"]["last_seen"] == seen


def _polls(lab: Lab, rounds: int) -> None:
    """For longer than a second, which is what times are told in."""
    for number in range(rounds):
        for path in POLLED:
            answer = lab.http.get(path)
            assert answer.status_code == 200, (path, answer.text)
        deadline = time.monotonic() + 0.5
        wait_for(lambda deadline=deadline: time.monotonic() > deadline, f"round {number} is over")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/contents/notes.txt", {"type": "file", "format": "text", "content": "a"}),
        ("GET", "/api/contents/notes.txt?type=file&content=1&format=text", None),
        ("GET", "/lab", None),
        ("POST", "/api/terminals", {}),
    ],
)
def test_a_person_is_seen(lab: Lab, method: str, path: str, body: dict[str, str] | None) -> None:
    lab.put("notes.txt", "a")
    seen = lab.activity()["person"]["last_seen"]

    def is_seen() -> bool:
        assert lab.http.request(method, path, json=body).status_code < 400
        return bool(lab.activity()["person"]["last_seen"] != seen)

    wait_for(is_seen, "somebody is seen", timeout=25, every=0.5)
    assert lab.activity()["person"]["present"]


def test_typing_in_a_notebook_is_seen_but_not_what_its_page_asks_the_kernel(lab: Lab) -> None:
    with lab.kernel() as kernel:
        _second_passes()
        seen = lab.activity()["person"]["last_seen"]
        list(kernel.messages(kernel.send("kernel_info_request")))
        list(kernel.messages(kernel.send("comm_info_request")))
        assert lab.activity()["person"]["last_seen"] == seen
        list(kernel.messages(kernel.send("complete_request", code="pri", cursor_pos=3)))
        assert lab.activity()["person"]["last_seen"] > seen
        _second_passes()
        seen = lab.activity()["person"]["last_seen"]
        kernel.run("1")
        assert lab.activity()["person"]["last_seen"] > seen


def test_saving_what_a_running_notebook_prints_is_nobodys_doing(lab: Lab, tmp_path: Path) -> None:
    with lab.kernel() as kernel:
        request = _work(kernel, tmp_path / "end")
        seen = lab.activity()["person"]["last_seen"]
        _second_passes()
        lab.put("work.ipynb", "{}")
        assert lab.activity()["person"]["last_seen"] == seen
        (tmp_path / "end").touch()
        list(kernel.messages(request))


def _second_passes() -> None:
    """Times are told in seconds."""
    now = datetime.now(UTC).second
    wait_for(lambda: datetime.now(UTC).second != now, "a second passes", every=0.02)


def test_a_terminal_works_while_a_command_runs_in_it(lab: Lab) -> None:
    name = lab.http.post("/api/terminals", json={}).json()["name"]
    wait_for(lambda: lab.activity()["terminals"], "the terminal is known")
    wait_for(lambda: not lab.activity()["busy"], "a shell that waits does not work")
    with terminal_socket(lab, name) as terminal:
        terminal.send(json.dumps(["stdin", "sleep 600\r"]))
        wait_for(lambda: lab.activity()["busy"], "the command runs")
        found = lab.activity()
        assert found["reasons"] == [f"terminal {name} runs sleep"]
        assert found["terminals"][0]["last_input"] is not None
        before = lab.last_activity()
        wait_for(lambda: lab.last_activity() > before, "activity is reported", timeout=15)
        terminal.send(json.dumps(["stdin", "\x1a"]))  # Ctrl-Z
        wait_for(lambda: not lab.activity()["busy"], "a stopped command does not work")
        terminal.send(json.dumps(["stdin", "bg\r"]))
        wait_for(lambda: lab.activity()["busy"], "in the background it works again")
        terminal.send(json.dumps(["stdin", "kill %1\r"]))
        wait_for(lambda: not lab.activity()["busy"], "the command has ended")
