"""Statements, the lines behind them, and what the GPUs of the cluster were doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...metering.idle import capacity
from ...metering.lines import intervals
from ...metering.query import FILTERS, Query
from ...metering.sheets import lines_csv, statement_csv
from ...metering.statements import usage
from ...model.usage import Window, rfc3339
from ..auth import visible_filters
from ..errors import PortalError
from ..handler import Handler


def _query(parameters: Mapping[str, Any], filters: Mapping[str, tuple[str, ...]]) -> Query:
    return Query.parse(
        group_by=parameters.get("group_by", ""),
        start=parameters.get("start"),
        end=parameters.get("end"),
        month=parameters.get("month"),
        filters=filters,
    )


class LedgerHandler(Handler):
    """What statements and lines share."""

    async def query(self) -> Query:
        """The question of this request, narrowed to what the caller may see."""
        asked = {name: self.parameters[name] for name in FILTERS if name in self.parameters}
        try:
            filters = visible_filters(asked, self.caller, ())
        except PortalError:
            # only now the hub has to be asked about teams
            filters = visible_filters(asked, self.caller, await self.my_teams())
        return _query(self.parameters, filters)


def _span(window: Window) -> str:
    return f"{rfc3339(window.start)[:10]}-to-{rfc3339(window.end)[:10]}"


class Usage(LedgerHandler):
    """`api/usage`."""

    async def get(self) -> None:
        query = await self.query()
        settings = self.portal.settings
        statement = await self.in_thread(
            usage,
            self.portal.engine,
            query,
            currency=settings.currency,
            digits=settings.digits,
        )
        if self.parameters.get("format") == "csv":
            self.write_csv(statement_csv(statement), f"usage-{_span(query.window)}.csv")
        else:
            self.write_json(statement.as_json())


class Intervals(LedgerHandler):
    """`api/usage/intervals`."""

    async def get(self) -> None:
        query = await self.query()
        page = await self.in_thread(
            intervals,
            self.portal.engine,
            query,
            page_size=self.parameters.get("page_size", 100),
            cursor=self.parameters.get("cursor", ""),
            digits=self.portal.settings.digits,
        )
        if self.parameters.get("format") == "csv":
            if page.cursor:
                self.set_header("X-Next-Cursor", page.cursor)
            self.write_csv(lines_csv(page.lines), f"intervals-{_span(query.window)}.csv")
        else:
            self.write_json({**page.as_json(), "currency": self.portal.settings.currency})


class Capacity(Handler):
    """`api/usage/capacity`."""

    async def get(self) -> None:
        window = _query({**self.parameters, "group_by": ""}, {}).window
        asked = self.parameters.get("group_by", "product").split(",")
        groups = [name.strip() for name in asked if name.strip()]
        statement = await self.in_thread(
            capacity,
            self.portal.engine,
            window,
            tuple(dict.fromkeys(name for name in groups if name != "day")),
            by_day="day" in groups,
        )
        self.write_json(statement.as_json())
