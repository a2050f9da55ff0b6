"""The page: my usage this month, my budgets, the GPUs free now; for administrators, everybody's.

Figures are collected here, drawn by `charts`, and put into HTML by the template, which escapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import Engine

from ..metering.budgets import Status, statuses
from ..metering.idle import CapacityRow, capacity
from ..metering.query import Query
from ..metering.statements import Row, Statement, usage
from ..model.usage import HOUR, Window, day_name, month_name, rfc3339
from .auth import Caller
from .charts import Bar, bar_chart, gauge
from .gpus import ProductRow, describe_gpus
from .handler import Handler
from .settings import Settings

MAX_ROWS = 100
TEMPLATES = Path(__file__).parent / "templates"


def hours(seconds: int) -> str:
    """GPU-seconds as hours for people, e.g. ``"1,234.50"``."""
    return f"{Decimal(seconds) / HOUR:,.2f}"


_templates = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
)
_templates.filters["hours"] = hours


@dataclass(frozen=True)
class Everybody:
    """What only administrators, and for their teams team administrators, see."""

    by_team: Statement
    by_user: Statement
    capacity: Sequence[CapacityRow]


@dataclass(frozen=True)
class Figures:
    """All numbers of the page."""

    window: Window
    as_of: int
    total: Row
    currency: str
    by_app: Sequence[Row]
    chart: str
    budgets: Sequence[tuple[Status, str]]
    everybody: Everybody | None

    @property
    def month(self) -> str:
        return month_name(self.window.start)

    @property
    def previous(self) -> str:
        return month_name(self.window.start - 1)

    @property
    def following(self) -> str:
        return month_name(self.window.end)


def collect(
    engine: Engine, settings: Settings, caller: Caller, teams: Sequence[str], month: str | None
) -> Figures:
    """Ask the ledger. Blocking; raises LedgerError for a month that is none."""
    window = Query.parse(month=month).window

    def ask(*group_by: str, **filters: tuple[str, ...]) -> Statement:
        query = Query(window, group_by, filters)
        return usage(engine, query, currency=settings.currency, digits=settings.digits)

    mine = {"user": (caller.user,)}
    by_day = ask("day", **mine)
    by_app = ask("team", "app", **mine)
    found = statuses(engine, settings.budgets, user=caller.user)
    for team in sorted(caller.groups):
        found += statuses(engine, settings.budgets, team=team)
    everybody = None
    if caller.is_admin or teams:
        only: dict[str, tuple[str, ...]] = {} if caller.is_admin else {"team": tuple(teams)}
        rows = capacity(engine, window).rows if caller.is_admin else []
        everybody = Everybody(ask("team", **only), ask("user", **only), rows)
    return Figures(
        window=window,
        as_of=by_day.as_of,
        total=by_day.total,
        currency=settings.currency,
        by_app=by_app.rows,
        chart=bar_chart(_bars(window, by_day.rows), "GPU-hours per day"),
        budgets=[(status, gauge(status.fraction, status.words)) for status in found],
        everybody=everybody,
    )


def _bars(window: Window, rows: Sequence[Row]) -> list[Bar]:
    used = {row.group["day"]: row.gpu_seconds for row in rows}
    days = [day_name(at) for at in (window.start, *window.midnights())]
    return [
        Bar(day[8:], used.get(day, 0) / HOUR, f"{day}: {hours(used.get(day, 0))} GPU-hours")
        for day in days
    ]


class UsagePage(Handler):
    """The service's front page."""

    async def get(self) -> None:
        teams = await self.my_teams()
        figures = await self.in_thread(
            collect,
            self.portal.engine,
            self.portal.settings,
            self.caller,
            teams,
            self.parameters.get("month"),
        )
        self.finish(self._render(figures, teams, await self._products()))

    async def _products(self) -> list[ProductRow] | None:
        snapshot = await self.portal.look_at_cluster()
        if snapshot is None:
            return None
        return describe_gpus(self.portal.settings.gpus, *snapshot).products

    def _render(
        self, figures: Figures, teams: Sequence[str], products: list[ProductRow] | None
    ) -> str:
        hub = self.portal.hub
        values: dict[str, Any] = {
            "caller": self.caller,
            "teams": teams,
            "figures": figures,
            "products": products,
            "as_of": rfc3339(figures.as_of) if figures.as_of else "",
            "prefix": hub.prefix,
            "hub": hub.public_host + hub.hub_prefix,
            "max_rows": MAX_ROWS,
        }
        return _templates.get_template("usage.html").render(values)
