"""Corrections by people: append-only lines with who and why. Nothing is ever edited. Blocking."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select

from ..model.pricing import exact_nano
from ..model.usage import HOUR
from .db import writing
from .errors import LedgerError
from .lease import database_time
from .prices import checked_name, checked_text
from .statements import heartbeat
from .tables import ADJUSTMENT, INTERVAL

# Larger corrections are mistakes more often than not; several smaller ones can be entered.
MAX_GPU_HOURS = 100_000
MAX_MONEY = Decimal(1_000_000)


@dataclass(frozen=True)
class Correction:
    """What to add (negative: take off), and to whom.

    With ``interval_uid`` it is about that interval: it takes its owner, team and so on from it, and
    cannot take off more than the interval has. Else ``owner`` or ``team`` say whose it is.
    ``effective_at``: the second whose day and month it counts in; None: the interval's start, or
    now.
    """

    gpu_seconds: int = 0
    money: Decimal | str | int = 0
    interval_uid: str = ""
    owner: str = ""
    team: str = ""
    app: str = ""
    effective_at: int | None = None


def adjust(engine: Engine, correction: Correction, *, actor: str, reason: str) -> int:
    """Enter a correction; returns its number. Raises LedgerError; then nothing is stored."""
    checked_name("bad_actor", "The actor", checked_text("bad_actor", "The actor", actor))
    checked_text("bad_reason", "The reason", reason)
    money_nano = _checked_amounts(correction)
    with writing(engine).begin() as connection:
        now = database_time(connection)
        whose = _whose(connection, correction)
        at = correction.effective_at
        if at is None:
            at = int(whose.pop("start_at", now))
        whose.pop("start_at", None)
        if not 0 <= at <= now:
            raise LedgerError("bad_time", "A correction cannot take effect in the future.")
        done = connection.execute(
            insert(ADJUSTMENT).values(
                interval_uid=correction.interval_uid,
                gpu_seconds=correction.gpu_seconds,
                money_nano=money_nano,
                effective_at=at,
                entered_at=now,
                actor=actor,
                reason=reason,
                **whose,
            )
        )
        key = done.inserted_primary_key
        assert key is not None
        return int(key[0])


def _checked_amounts(correction: Correction) -> int:
    if type(correction.gpu_seconds) is not int:
        raise LedgerError("bad_adjustment", "GPU-seconds are a whole number.")
    if abs(correction.gpu_seconds) > MAX_GPU_HOURS * HOUR:
        raise LedgerError(
            "adjustment_too_large",
            f"A single adjustment is at most {MAX_GPU_HOURS} GPU-hours.",
            maximum=MAX_GPU_HOURS * HOUR,
        )
    try:
        money = Decimal(correction.money)
        if not money.is_finite() or abs(money) > MAX_MONEY:
            raise LedgerError(
                "adjustment_too_large",
                f"A single adjustment is at most {MAX_MONEY} of the currency.",
                maximum=str(MAX_MONEY),
            )
        nano = exact_nano(money)
    except (InvalidOperation, TypeError) as error:
        raise LedgerError("bad_adjustment", "The money is not a number such as -1.50.") from error
    except LedgerError:
        raise
    except ValueError as error:
        raise LedgerError("bad_adjustment", f"{error}.") from error
    if not correction.gpu_seconds and not nano:
        raise LedgerError("bad_adjustment", "The adjustment changes nothing.")
    return nano


def _whose(connection: Connection, correction: Correction) -> dict[str, Any]:
    names = ("owner", "team", "app", "job", "profile", "product", "component")
    if not correction.interval_uid:
        if not correction.owner and not correction.team:
            raise LedgerError("bad_adjustment", "Say whose it is: an interval, an owner or a team.")
        whose = dict.fromkeys(names, "")
        for name in ("owner", "team", "app"):
            whose[name] = checked_name("bad_adjustment", f"The {name}", getattr(correction, name))
        return {**whose}
    row = connection.execute(
        select(INTERVAL).where(INTERVAL.c.uid == correction.interval_uid)
    ).mappings()
    interval = row.first()
    if interval is None:
        raise LedgerError("unknown_interval", "There is no interval of this uid.")
    if any((correction.owner, correction.team, correction.app)):
        raise LedgerError("bad_adjustment", "Give an interval or names, not both.")
    before = connection.scalar(
        select(func.coalesce(func.sum(ADJUSTMENT.c.gpu_seconds), 0)).where(
            ADJUSTMENT.c.interval_uid == correction.interval_uid
        )
    )
    end = interval["end_at"]
    if end is None:
        end = max(heartbeat(connection), interval["start_at"])
    has = interval["gpus"] * (end - interval["start_at"]) + int(before or 0)
    if correction.gpu_seconds < 0 and has + correction.gpu_seconds < 0:
        raise LedgerError(
            "adjustment_below_zero",
            f"The interval has {has} GPU-seconds; more cannot be taken off.",
            minimum=-has,
        )
    return {**{name: interval[name] for name in names}, "start_at": interval["start_at"]}


def adjustments(engine: Engine, *, limit: int = 1000) -> list[dict[str, Any]]:
    """The latest corrections, newest first."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(ADJUSTMENT).order_by(ADJUSTMENT.c.id.desc()).limit(limit)
        ).mappings()
        return [dict(row) for row in rows]
