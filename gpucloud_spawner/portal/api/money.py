"""Prices, corrections and budgets."""

from __future__ import annotations

from typing import Any

from ...metering.adjustments import Correction, adjust, adjustments
from ...metering.budgets import Budgets, Status, check, statuses
from ...metering.prices import price_lines, set_price
from ...metering.query import Query, check_page_size, to_epoch
from ...metering.statements import usage
from ...model.pricing import nano_text
from ...model.usage import rfc3339
from ..errors import PortalError
from ..handler import Handler

# More GPUs than any cluster has: a number beyond is a mistake.
MAX_GPUS = 1_000_000


def _price_json(line: dict[str, Any], for_admin: bool) -> dict[str, Any]:
    shown = {
        "kind": line["kind"],
        "source": line["source"],
        "profile": line["profile"],
        "product": line["product"],
        "price": None if line["nano"] is None else nano_text(line["nano"]),
        "valid_from": rfc3339(line["valid_from"]),
    }
    if for_admin:
        entered = rfc3339(line["entered_at"])
        shown |= {"entered_at": entered, "actor": line["actor"], "reason": line["reason"]}
    return shown


class Prices(Handler):
    """`api/prices`."""

    async def get(self) -> None:
        lines = await self.in_thread(price_lines, self.portal.engine)
        self.write_json(
            {
                "currency": self.portal.settings.currency,
                "prices": [_price_json(line, self.caller.is_admin) for line in lines],
            }
        )

    async def post(self) -> None:
        body = self.body
        since = body.get("valid_from")
        price = await self.in_thread(
            set_price,
            self.portal.engine,
            price=body["price"],
            actor=self.caller.actor,
            reason=body["reason"],
            kind=body.get("kind", "gpu"),
            profile=body.get("profile", ""),
            product=body.get("product", ""),
            valid_from=None if since is None else to_epoch("valid_from", since),
        )
        line = {
            "kind": price.kind,
            "source": price.source,
            "profile": price.profile,
            "product": price.product,
            "nano": price.nano,
            "valid_from": price.valid_from,
        }
        self.write_json(_price_json(line, for_admin=False), 201)


class Adjustments(Handler):
    """`api/adjustments`."""

    async def get(self) -> None:
        limit = check_page_size(self.parameters.get("page_size", 100))
        rows = await self.in_thread(adjustments, self.portal.engine, limit=limit)
        self.write_json({"adjustments": [_adjustment_json(row) for row in rows]})

    async def post(self) -> None:
        body = self.body
        at = body.get("effective_at")
        correction = Correction(
            gpu_seconds=body.get("gpu_seconds", 0),
            money=body.get("money", "0"),
            interval_uid=body.get("interval_uid", ""),
            owner=body.get("user", ""),
            team=body.get("team", ""),
            app=body.get("app", ""),
            effective_at=None if at is None else to_epoch("effective_at", at),
        )
        number = await self.in_thread(
            adjust,
            self.portal.engine,
            correction,
            actor=self.caller.actor,
            reason=body["reason"],
        )
        self.write_json({"id": number}, 201)


def _adjustment_json(row: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "interval_uid", "team", "app", "gpu_seconds", "actor", "reason")
    return {
        **{name: row[name] for name in names},
        "user": row["owner"],
        "money": _signed(row["money_nano"]),
        "effective_at": rfc3339(row["effective_at"]),
        "entered_at": rfc3339(row["entered_at"]),
    }


def _signed(nano: int) -> str:
    return ("-" if nano < 0 else "") + nano_text(abs(nano))


class BudgetList(Handler):
    """`api/budgets`."""

    async def get(self) -> None:
        scope = self.parameters.get("scope", "own")
        engine, budgets = self.portal.engine, self.portal.settings.budgets
        found: list[Status] = []
        if scope == "all":
            if not self.caller.is_admin:
                raise PortalError(403, "forbidden", "Only administrators see all budgets.")
            found = await self.in_thread(all_statuses, self.portal, budgets)
        else:
            teams = sorted(self.caller.groups)
            if scope == "team":
                teams = list(await self.portal.teams.administered_by(self.caller.user))
            else:
                found += await self.in_thread(statuses, engine, budgets, user=self.caller.user)
            for team in teams:
                found += await self.in_thread(statuses, engine, budgets, team=team)
        self.write_json({"budgets": [status.as_json() for status in found]})


def all_statuses(portal: Any, budgets: Budgets) -> list[Status]:
    """Every budget with a name of its own, and everybody's who used GPUs this month. Blocking."""
    found = []
    for scope, limits, limit_of in (
        ("user", budgets.users, budgets.of_user),
        ("team", budgets.teams, budgets.of_team),
    ):
        query = Query.parse(group_by=scope)
        rows = usage(portal.engine, query).rows
        used = {row.group[scope]: row.gpu_seconds for row in rows}
        for name in sorted({*used, *limits} - {"*", ""}):
            limit = limit_of(name)
            if limit is not None:
                found.append(Status(scope, name, limit, used.get(name, 0), query.window.end))
    return found


class BudgetCheck(Handler):
    """`api/budgets/check`: asked by the spawner, with the new server's own token."""

    async def get(self) -> None:
        caller = self.caller
        user = self.parameters.get("user", caller.user)
        team = self.parameters.get("team", "")
        gpus = self.parameters.get("gpus", 1)
        if not 0 <= gpus <= MAX_GPUS:
            raise PortalError(
                400, "bad_value", f"gpus must be 0 to {MAX_GPUS}.", minimum=0, maximum=MAX_GPUS
            )
        mine = caller.user != "" and user == caller.user and team in {"", *caller.groups}
        if not caller.is_admin and not mine:
            raise PortalError(403, "forbidden", "You may ask for yourself and for your own teams.")
        decision = await self.in_thread(
            check,
            self.portal.engine,
            self.portal.settings.budgets,
            user=user,
            team=team,
            gpus=gpus,
        )
        self.write_json({**decision.as_json(), "allowed": decision.allowed})
