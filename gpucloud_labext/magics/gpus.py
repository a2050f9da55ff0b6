"""`%gpucloud gpus`: memory, load and processes of this server's GPUs."""

from __future__ import annotations

import argparse
import time
from typing import Any

from ..client import own_server
from ..errors import LabError
from . import show
from .command import Command, Context, Parser, Result

MAX_WATCH_SECONDS = 24 * 3600


def add_options(parser: Parser) -> None:
    parser.add_argument("--watch", action="store_true", help="renew it until you interrupt it")
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="with --watch; default: 1"
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="with --watch: end after so long; default: 600, because the notebook counts as "
        "working meanwhile",
    )


def run(options: argparse.Namespace, context: Context) -> Result:
    if not options.watch:
        return _read()
    if not 0.2 <= options.every <= 60:
        raise LabError(400, "usage", "--every takes 0.2 to 60 seconds")
    if not 0 < options.seconds <= MAX_WATCH_SECONDS:
        raise LabError(400, "usage", f"--for takes up to {MAX_WATCH_SECONDS} seconds")
    return _watch(options.every, options.seconds)


def _read() -> Result:
    server, _ = own_server()
    data = server.request("GET", "gpucloud/api/gpus")
    return Result(_text(data), _html(data), data)


def _watch(every: float, seconds: float) -> Result:
    from IPython.display import display

    ends = time.monotonic() + seconds
    result = _read()
    shown: Any = display(result, display_id=True)
    try:
        while time.monotonic() + every < ends:
            time.sleep(every)
            result = _read()
            shown.update(result)
    except KeyboardInterrupt:
        pass  # that is how it is ended
    result.shown = True
    return result


def _memory(device: dict[str, Any]) -> str:
    used, total = device["memory_used_bytes"], device["memory_total_bytes"]
    return "-" if total is None else f"{show.size(used)} of {show.size(total)}"


def _load(device: dict[str, Any]) -> str:
    percent = device["utilization_percent"]
    return "-" if percent is None else f"{percent} %"


def _processes(data: dict[str, Any]) -> list[list[str]]:
    return [
        [
            str(device["index"]),
            str(process["pid"]),
            show.size(process["memory_bytes"]),
            process["command"] or "not of this server",
        ]
        for device in data["devices"]
        for process in device["processes"]
    ]


def _text(data: dict[str, Any]) -> str:
    parts = [data["message"]] if data["message"] else []
    if data["devices"]:
        rows = [["GPU", "name", "load", "memory"]]
        for device in data["devices"]:
            rows.append([str(device["index"]), device["name"], _load(device), _memory(device)])
        parts.append(show.text_table(rows, right=(2,)))
    if processes := _processes(data):
        parts.append(show.text_table([["GPU", "pid", "memory", "process"], *processes], (1, 2)))
    return "\n".join(parts)


def _html(data: dict[str, Any]) -> str:
    parts = [f"<p>{show.escape(data['message'])}</p>"] if data["message"] else []
    for device in data["devices"]:
        parts.append(f"<div>{_device_html(device)}</div>")
    if processes := _processes(data):
        head = ["GPU", "pid", "memory", "process"]
        parts.append(show.html_table([head, *processes], (1, 2), caption="Processes"))
    return "".join(parts)


def _device_html(device: dict[str, Any]) -> str:
    title = f"<strong>GPU {device['index']}</strong> {show.escape(device['name'])}"
    meters = []
    if device["utilization_percent"] is not None:
        percent = device["utilization_percent"]
        meters.append(show.meter(f"Load of GPU {device['index']}", percent, f"load {percent} %"))
    used, total = device["memory_used_bytes"], device["memory_total_bytes"]
    if total and used is not None:
        label = f"Memory of GPU {device['index']}"
        meters.append(show.meter(label, 100 * used / total, f"memory {_memory(device)}"))
    return title + "".join(f'<div style="margin: 2px 0">{meter}</div>' for meter in meters)


COMMAND = Command(
    "gpus",
    "This server's GPUs: memory, load, processes",
    run,
    add_options,
    examples=(
        "%gpucloud gpus",
        "%gpucloud gpus --watch              # live, until you interrupt the kernel",
        "gpus = %gpucloud gpus               # then: gpus.devices[0]['utilization_percent']",
    ),
)
