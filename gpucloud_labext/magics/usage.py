"""`%gpucloud usage`: own GPU-hours and their cost, with a chart."""

from __future__ import annotations

import argparse
import calendar
from typing import Any

from ..client import own_server
from . import show
from .chart import bars
from .command import Command, Context, Parser, Result

GROUPS = ("day", "app", "job", "profile", "team")
WORDS = {"app": "application"}
MAX_BARS = 16


def add_options(parser: Parser) -> None:
    parser.add_argument("--by", choices=GROUPS, default="day", help="default: day")
    parser.add_argument("--month", metavar="YYYY-MM", help="UTC; default: this month")


def run(options: argparse.Namespace, context: Context) -> Result:
    server, _ = own_server()
    asked = {"group_by": options.by}
    if options.month:
        asked["month"] = options.month
    data = server.request("GET", "gpucloud/api/usage", params=asked)
    table = _table(data, options.by)
    month = data["start"][:7]
    title = f"GPU-hours by {WORDS.get(options.by, options.by)} in {month}"
    total = f"{show.hours(data['total']['gpu_seconds'])} GPU-hours, {_money(data, data['total'])}"
    right = range(1, len(table[0]))
    heading = f"{title}: {total}"
    html = (
        f'<p style="margin: 4px 0"><strong>{show.escape(heading)}</strong></p>'
        + bars(_values(data, options.by, month), heading, "GPU-hours")
        + show.html_table(table, right, caption=f"As of {_utc(data['as_of'])}", total=True)
    )
    return Result(f"{heading}\n{show.text_table(table, right)}", html, data)


def _utc(time: str) -> str:
    return time.replace("T", " ").replace("Z", " UTC")


def _money(data: dict[str, Any], row: dict[str, Any]) -> str:
    return f"{row['cost']} {data['currency']}"


def _name(row: dict[str, Any], by: str) -> str:
    return str(row[by]) or {"app": "(default server)", "team": "(no team)"}.get(by, "(none)")


def _table(data: dict[str, Any], by: str) -> list[list[str]]:
    volumes = any(row["storage_gib_seconds"] for row in data["rows"])
    head = [WORDS.get(by, by), "GPU-hours", "cost"]
    rows = [head] + [
        [_name(row, by), show.hours(row["gpu_seconds"]), _money(data, row)] for row in data["rows"]
    ]
    total = data["total"]
    rows.append(["total", show.hours(total["gpu_seconds"]), _money(data, total)])
    if volumes:
        for line, row in zip(rows[1:], [*data["rows"], total], strict=True):
            line.insert(2, show.hours(row["storage_gib_seconds"]))
        head.insert(2, "GiB-hours of volumes")
    return rows


def _values(data: dict[str, Any], by: str, month: str) -> list[tuple[str, float]]:
    """What the chart shows: every day of the month, or the biggest of other groups."""
    found = {_name(row, by): row["gpu_seconds"] / 3600 for row in data["rows"]}
    if by != "day":
        biggest = sorted(found.items(), key=lambda pair: -pair[1])
        rest = sum(value for _, value in biggest[MAX_BARS:])
        return biggest[:MAX_BARS] + ([("others", rest)] if rest else [])
    days = calendar.monthrange(int(month[:4]), int(month[5:]))[1]
    return [(str(day), found.get(f"{month}-{day:02}", 0.0)) for day in range(1, days + 1)]


COMMAND = Command(
    "usage",
    "Your GPU-hours and their cost",
    run,
    add_options,
    examples=(
        "%gpucloud usage                     # this month, by day",
        "%gpucloud usage --by app --month 2026-11",
        "usage = %gpucloud usage --by job    # then: usage.rows, usage.total['cost']",
    ),
)
