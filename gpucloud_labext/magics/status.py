"""`%gpucloud status`: what this server is, and what it has cost."""

from __future__ import annotations

import argparse
from typing import Any

from ..client import own_server
from . import show
from .command import Command, Context, Result


def run(options: argparse.Namespace, context: Context) -> Result:
    server, _ = own_server()
    data = server.request("GET", "gpucloud/api/status")
    facts = _facts(data)
    return Result(show.text_table(facts), show.html_facts(facts), data)


def _facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    name = data["application"] or "your default server"
    facts = [
        ("application", f"{name} of {data['user']}" if data["user"] else name),
        ("team", data["team"] or "none: billed to you"),
        ("profile", data["profile"] or "-"),
        ("image", data["image"] or "-"),
        ("GPUs", str(data["gpus"])),
        ("running for", f"{show.duration(data['uptime_seconds'])}, since {_utc(data['started'])}"),
        ("cost so far", _cost(data)),
    ]
    if others := _other_work(data["activity"]):
        facts.append(("working", ", ".join(others)))
    if data["s3"]:
        facts.append(("S3", f"bucket {data['s3']['bucket']} at {data['s3']['endpoint']}"))
    return facts


def _utc(time: str) -> str:
    return time.replace("T", " ").replace("Z", " UTC")


def _cost(data: dict[str, Any]) -> str:
    if data["service"] != "ok":
        return f"not known: {data['service']}"
    if data["cost_so_far"] is None:
        return "not known yet: the ledger has not seen this server"
    price = data["price_per_gpu_hour"]
    words = f"{data['cost_so_far']} {data['currency']}"
    if not data["gpus"] or price is None:
        return words
    return f"{words}, {price} {data['currency']} per GPU-hour"


def _other_work(activity: dict[str, Any]) -> list[str]:
    """What works beside the cell that asks."""
    own = _own_kernel()
    found = [
        kernel["path"] or kernel["name"]
        for kernel in activity["kernels"]
        if kernel["busy"] and kernel["id"] != own
    ]
    for terminal in activity["terminals"]:
        found += [f"{command} in terminal {terminal['name']}" for command in terminal["commands"]]
    return found


def _own_kernel() -> str:
    from ipykernel.connect import get_connection_file

    try:
        file = get_connection_file()
    except RuntimeError:  # IPython in a terminal
        return ""
    return file.rpartition("kernel-")[2].removesuffix(".json")


COMMAND = Command(
    "status",
    "This server: application, team, profile, GPUs, time, cost so far",
    run,
    examples=("%gpucloud status", "now = %gpucloud status   # then: now.cost_so_far, now.gpus"),
)
