"""`%gpucloud` in a real kernel of a real server: what a person sees, and what a script gets."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from gpucloud_labext.magics.chart import bars, nice_top
from gpucloud_labext.magics.command import Context
from gpucloud_labext.magics.commands import COMMANDS
from gpucloud_labext.magics.dispatch import dispatch
from gpucloud_labext.magics.show import duration, hours, size

from .lab import Kernel, Lab, Service

TOTAL = {"gpu_seconds": 9000, "storage_gib_seconds": 0, "cost": "3.75", "running": True}
USAGE = {
    "start": "2026-11-01T00:00:00Z",
    "end": "2026-12-01T00:00:00Z",
    "as_of": "2026-11-23T14:00:00Z",
    "currency": "EUR",
    "group_by": ["app"],
    "rows": [
        {"app": "", "gpu_seconds": 1800, "storage_gib_seconds": 0, "cost": "0.75"},
        {"app": "<b>train</b>", "gpu_seconds": 7200, "storage_gib_seconds": 0, "cost": "3.00"},
    ],
    "total": TOTAL,
    "rounding": "0.00",
}
BY_DAY = {
    **USAGE,
    "group_by": ["day"],
    "rows": [{"day": "2026-11-07", "gpu_seconds": 9000, "storage_gib_seconds": 0, "cost": "3.75"}],
}
LINE = {
    "name": "jupyter-ada",
    "running": True,
    "start": "2026-11-23T10:00:00Z",
    "cost": "1.23",
    "prices": [{"price_per_hour": "1.50"}],
}


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> Iterator[Kernel]:
    with lab.kernel() as kernel:
        # of the machine's etc/ipython, or by hand where the environment has none
        kernel.run("%load_ext gpucloud_labext")
        yield kernel


@pytest.fixture(autouse=True)
def _answers(service: Service) -> None:
    service.answers = {
        "api/usage": (200, USAGE),
        "api/usage/intervals": (200, {"lines": [LINE], "next": "", "currency": "EUR"}),
    }


def shown(kernel: Kernel, code: str) -> dict[str, str]:
    """What a cell shows as its value."""
    for kind, content in kernel.run(code):
        assert kind != "error", content
        if kind in ("execute_result", "display_data"):
            data: dict[str, str] = content["data"]
            return data
    return {}


def printed(kernel: Kernel, code: str) -> str:
    text = ""
    for kind, content in kernel.run(code):
        assert kind != "error", "\n".join(content["traceback"])
        text += content["text"] if kind == "stream" else ""
    return text.strip()


def completions(kernel: Kernel, code: str) -> list[str]:
    """The whole words that the tab key offers."""
    request = kernel.send("complete_request", code=code, cursor_pos=len(code))
    [reply] = [c for kind, c in kernel.messages(request) if kind == "complete_reply"]
    head = code[: reply["cursor_start"]]
    return [head + match for match in reply["matches"]]


def test_help_lists_every_command_and_explains_each(kernel: Kernel) -> None:
    listed = shown(kernel, "%gpucloud help")["text/plain"]
    for name, command in COMMANDS.items():
        assert f"  {name}" in listed and command.summary in listed
        told = shown(kernel, f"%gpucloud help {name}")["text/plain"]
        assert told.startswith(f"usage: %gpucloud {name}")
        assert command.summary in " ".join(told.split())
        assert command.examples, f"{name} has no example"
        assert "examples:" in told and command.examples[0] in told
        assert shown(kernel, f"%gpucloud {name} --help")["text/plain"] == told
    assert shown(kernel, "%gpucloud")["text/plain"] == listed


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_can_be_pasted_as_they_are(name: str) -> None:
    ran: list[argparse.Namespace] = []
    for line in COMMANDS[name].examples:
        words = line.partition("gpucloud ")[2]
        seen = replace(COMMANDS[name], run=lambda options, _: ran.append(options))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(COMMANDS, name, seen)
            dispatch(words, Context(cell="1" if line.startswith("%%") else None))
    assert len(ran) == len(COMMANDS[name].examples)


def test_what_is_quoted_is_no_comment(kernel: Kernel) -> None:
    told = kernel.run("%gpucloud help 'a # b'  # c")
    assert any("There is no %gpucloud a # b." in str(content) for _, content in told)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%gpucloud stauts", "There is no %gpucloud stauts. Did you mean status?"),
        ("%gpucloud usage --by weather", "invalid choice: 'weather'"),
        ("%gpucloud usage --bye day", "unrecognized arguments: --bye day"),
        ("%gpucloud status 'a", "check the quotes"),
        ("%gpucloud gpus --watch --every 0", "--every takes 0.2 to 60 seconds"),
        ("%%gpucloud status\nx = 1", "takes one line"),
    ],
)
def test_a_mistake_is_one_line(kernel: Kernel, line: str, words: str) -> None:
    messages = kernel.run(line)
    said = "".join(content["text"] for kind, content in messages if kind == "stream")
    assert said.startswith("UsageError: ")
    assert words in said
    assert said.strip().count("\n") == 0


def test_what_the_service_refuses_is_one_line_too(kernel: Kernel, service: Service) -> None:
    refusal = {"code": "bad_month", "message": "2026-13 is no month.", "details": {}}
    service.answers["api/usage"] = (400, refusal)
    messages = kernel.run("%gpucloud usage --month 2026-13")
    said = "".join(content["text"] for kind, content in messages if kind == "stream")
    assert said == "UsageError: 2026-13 is no month.\n"


@pytest.mark.parametrize(
    ("code", "some", "exactly"),
    [
        ("%gpucloud ", ["%gpucloud status", "%gpucloud help"], False),
        ("%gpucloud sta", ["%gpucloud status"], True),
        ("x = 1\n%gpucloud sta", ["x = 1\n%gpucloud status"], True),
        ("%gpucloud help us", ["%gpucloud help usage"], True),
        ("%gpucloud usage --", ["%gpucloud usage --by", "%gpucloud usage --month"], True),
        ("%gpucloud usage --by ", ["%gpucloud usage --by day", "%gpucloud usage --by app"], False),
        ("%gpucloud usage --by=j", ["%gpucloud usage --by=job"], True),
        ("%gpucloud usage --by day --", ["%gpucloud usage --by day --month"], True),
        ("u = %gpucloud usage --by d", ["u = %gpucloud usage --by day"], True),
        ("%%gpucloud sta", ["%%gpucloud status"], True),
        ("%gpucloud gpus --w", ["%gpucloud gpus --watch"], True),
    ],
)
def test_the_tab_key(kernel: Kernel, code: str, some: list[str], exactly: bool) -> None:
    found = completions(kernel, code)
    assert set(some) <= set(found)
    if exactly:
        assert sorted(found) == sorted(some)


def test_status_shows_what_the_server_is(kernel: Kernel) -> None:
    data = shown(kernel, "%gpucloud status")
    text = data["text/plain"]
    for words in ("train of ada", "vision", "tensorflow", "1.23 EUR, 1.50 EUR per GPU-hour"):
        assert words in text
        assert words in data["text/html"]
    assert "since 2026-11-23 10:00:00 UTC" in text
    assert "work.ipynb" not in text, "the cell that asks is no news"
    got = printed(kernel, "s = %gpucloud status\nprint(s.gpus, s['team'], s.data['currency'])")
    assert got == "1 vision EUR"
    assert shown(kernel, "s = %gpucloud status") == {}


def test_gpus_that_are_simulated_are_called_so(kernel: Kernel) -> None:
    data = shown(kernel, "%gpucloud gpus")
    assert "simulated" in data["text/plain"]
    assert "Simulated GPU" in data["text/html"]
    assert "meter" not in data["text/html"], "nothing is shown that nobody measured"


def test_watching_ends_by_itself_and_is_shown_once(kernel: Kernel) -> None:
    messages = kernel.run("%gpucloud gpus --watch --every 0.2 --for 1")
    kinds = [kind for kind, _ in messages if "display" in kind or kind == "execute_result"]
    assert kinds[0] == "display_data"
    assert set(kinds[1:]) == {"update_display_data"}


def test_watching_is_ended_by_an_interrupt(kernel: Kernel, lab: Lab) -> None:
    request = kernel.execute("w = %gpucloud gpus --watch --every 0.2\nprint(len(w.devices))")
    text = ""
    for kind, content in kernel.messages(request):
        assert kind != "error", content
        if kind == "update_display_data" and not text:
            lab.http.post(f"/api/kernels/{kernel.id}/interrupt")
        text += content["text"] if kind == "stream" else ""
    assert text.strip() == "1"


def test_usage_by_application(kernel: Kernel, service: Service) -> None:
    data = shown(kernel, "%gpucloud usage --by app --month 2026-11")
    assert service.asked[-1][1] == "api/usage?group_by=app&month=2026-11"
    lines = data["text/plain"].splitlines()
    assert lines[0] == "GPU-hours by application in 2026-11: 2.50 GPU-hours, 3.75 EUR"
    assert [line.split() for line in lines[1:]] == [
        ["application", "GPU-hours", "cost"],
        ["(default", "server)", "0.5", "0.75", "EUR"],
        ["<b>train</b>", "2.00", "3.00", "EUR"],
        ["total", "2.50", "3.75", "EUR"],
    ]
    assert "<b>train" not in data["text/html"]
    assert "&lt;b&gt;train&lt;/b&gt;" in data["text/html"]
    assert printed(kernel, "u = %gpucloud usage --by app\nprint(u.rows[1]['cost'])") == "3.00"


def test_usage_by_day_has_a_bar_for_the_day_and_a_place_for_each(
    kernel: Kernel, service: Service
) -> None:
    service.answers["api/usage"] = (200, BY_DAY)
    html = shown(kernel, "%gpucloud usage")["text/html"]
    svg = html[html.index("<svg") : html.index("</svg>") + 6]
    names = {"s": "http://www.w3.org/2000/svg"}
    chart = ET.fromstring(svg)  # noqa: S314 - our own
    [bar] = chart.findall("s:rect", names)
    assert bar.findtext("s:title", namespaces=names) == "7: 2.5"
    title, said = chart.find("s:title", names), chart.find("s:desc", names)
    assert title is not None and said is not None
    assert chart.get("aria-labelledby") == f"{title.get('id')} {said.get('id')}"
    assert said.text == "GPU-hours. 7: 2.5"
    # the seventh of thirty places
    middle = float(bar.get("x", "0")) + float(bar.get("width", "0")) / 2
    assert middle == pytest.approx(48 + (640 - 48 - 8) / 30 * 6.5, abs=0.2)


def test_an_empty_month_is_no_mistake(kernel: Kernel, service: Service) -> None:
    nothing = {**TOTAL, "gpu_seconds": 0, "cost": "0.00"}
    service.answers["api/usage"] = (200, {**BY_DAY, "rows": [], "total": nothing})
    data = shown(kernel, "%gpucloud usage")
    assert data["text/plain"].startswith("GPU-hours by day in 2026-11: 0.00 GPU-hours, 0.00 EUR")
    assert "nothing" in data["text/html"]


def test_without_the_service_the_rest_is_told(kernel: Kernel, lab: Lab, service: Service) -> None:
    code = "import gpucloud_labext.client as c\n"
    code += "print(c.service().request('GET', 'api/nowhere'))"
    messages = kernel.run(code)
    [error] = [content for kind, content in messages if kind == "error"]
    assert error["ename"] == "LabError"
    assert error["evalue"] == "There is none."


def test_it_is_there_without_load_ext_whatever_extensions_a_user_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile_default"
    profile.mkdir()
    (profile / "ipython_config.py").write_text("c.InteractiveShellApp.extensions = ['autoreload']")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    manager, client = start_new_kernel()
    try:
        said: list[dict[str, Any]] = []
        client.execute_interactive(
            "x = %gpucloud help\nmagics = %lsmagic\n"
            "print('usage' in x.text, '%autoreload' in str(magics))",
            output_hook=lambda message: said.append(message["content"]),
            timeout=60,
        )
        assert "".join(content.get("text", "") for content in said) == "True True\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_chart_survives_any_name() -> None:
    names = ["<script>alert(1)</script>", "a & b", "x" * 300, "", "ü\u202e"]
    root = ET.fromstring(bars([(name, 1.0) for name in names], "t & t", "<u>"))  # noqa: S314
    assert json.dumps(root.attrib)


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (37, 50), (99, 100), (100, 100)]
)
def test_the_axis_ends_in_a_round_number(highest: float, top: float) -> None:
    assert nice_top(highest) == pytest.approx(top)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (duration(0), "0 s"),
        (duration(59.9), "59 s"),
        (duration(3600), "1 h"),
        (duration(7505), "2 h 5 min"),
        (duration(90061), "1 d 1 h"),
        (size(0), "0 B"),
        (size(None), "-"),
        (size(80 * 2**30), "80.0 GiB"),
        (hours(0), "0.00"),
        (hours(36), "0.01"),
        (hours(5400), "1.50"),
    ],
)
def test_numbers_in_words(value: Any, words: str) -> None:
    assert value == words
