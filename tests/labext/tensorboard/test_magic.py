"""`%gpucloud tensorboard` in a real kernel of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..contents.servers import wait_for
from ..lab import Kernel, Lab
from . import runs


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> Iterator[Kernel]:
    runs.scalars(lab.home / "project" / "runs <b>")
    with lab.kernel() as kernel:
        kernel.run("%load_ext gpucloud_labext\n%cd project")
        yield kernel


def last(kernel: Kernel, code: str) -> dict[str, Any]:
    """The content of the last message that shows something."""
    found = [c for kind, c in kernel.run(code) if kind in ("execute_result", "error", "stream")]
    return found[-1]


def boards(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.api("tensorboards").json()["tensorboards"]
    return found


def test_it_is_shown_listed_and_stopped(lab: Lab, kernel: Kernel) -> None:
    shown = last(kernel, "%gpucloud tensorboard 'runs <b>' --height 500")["data"]
    [board] = boards(lab)
    assert board["logdir"] == "project/runs <b>", "a notebook means its own folder"
    assert board["state"] == "running"
    assert f'<iframe src="{board["url"]}"' in shown["text/html"]
    assert f'<a href="{board["url"]}" target="_blank">' in shown["text/html"]
    assert "height: 500px" in shown["text/html"]
    assert "<b>" not in shown["text/html"]
    assert shown["text/plain"] == f"TensorBoard of project/runs <b>: {board['url']}"

    listing = last(kernel, "found = %gpucloud tensorboard --list\nprint(found)\nfound")["data"]
    assert "project/runs &lt;b&gt;</a>: running, " in listing["text/html"]
    assert last(kernel, "print(found.data[0]['state'])")["text"].strip() == "running"
    last(kernel, "%gpucloud tensorboard --stop 'runs <b>'")
    wait_for(lambda: boards(lab) == [], "end of the TensorBoard")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "Which log directory?"),
        ("/etc", "seen from your home"),
        ("../../..", "seen from your home"),
        ("s3://other/runs", "is not a bucket of yours"),
        ("runs --height 5", "100 to 10000"),
        ("--stop nothing-here", "No TensorBoard runs for"),
        ("s3://ada-bucket/runs", "There is no S3 key"),
    ],
)
def test_what_goes_wrong_is_one_line(lab: Lab, kernel: Kernel, line: str, words: str) -> None:
    error = last(kernel, f"%gpucloud tensorboard {line}")
    text = error.get("evalue") or error.get("text", "")
    assert words in text
    assert len(text.strip().splitlines()) == 1
    for board in boards(lab):
        lab.api(f"tensorboards/{board['id']}", "DELETE")


def test_folders_are_completed(kernel: Kernel) -> None:
    message = kernel.send("complete_request", code="%gpucloud tensorboard ru", cursor_pos=24)
    [reply] = [c for kind, c in kernel.messages(message) if kind == "complete_reply"]
    assert "runs <b>/" in reply["matches"]
