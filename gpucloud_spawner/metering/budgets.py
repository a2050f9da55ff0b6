"""Budgets: GPU-hours per calendar month (UTC), of a person and of a team.

A budget never ends what runs; it refuses new GPU servers once it is used up. `Status` and `judge`
are pure; `statuses` and `check` ask the ledger (blocking).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import Engine

from ..model.usage import HOUR, Window, month_of, rfc3339
from .errors import LedgerError
from .lease import database_time
from .query import Query
from .statements import usage

NOTICE_FRACTION = 0.8
# As a name in a budget list: everybody (every team) that has no budget of its own.
EVERYBODY = "*"


@dataclass(frozen=True)
class Budgets:
    """GPU-hours per month by user name and by team name; ``"*"`` for all others. Example::

    Budgets(users={"*": Decimal(50), "ada": Decimal(200)}, teams={"vision": Decimal(1000)})
    """

    users: Mapping[str, Decimal] = field(default_factory=dict)
    teams: Mapping[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, hours in (*self.users.items(), *self.teams.items()):
            if not hours.is_finite() or hours < 0:
                raise LedgerError("bad_budget", f"The budget of {name} is not zero or more hours.")

    def of_user(self, name: str) -> Decimal | None:
        """A user's limit in GPU-hours; None: no limit."""
        return self.users.get(name, self.users.get(EVERYBODY))

    def of_team(self, name: str) -> Decimal | None:
        """A team's limit in GPU-hours; None: no limit."""
        return self.teams.get(name, self.teams.get(EVERYBODY)) if name else None


@dataclass(frozen=True)
class Status:
    """How a budget stands."""

    scope: str  # "user" or "team"
    name: str
    limit_hours: Decimal
    used_seconds: int
    renews_at: int

    @property
    def fraction(self) -> float:
        """Used part; 1.0 and more: used up. A budget of zero is used up."""
        limit = self.limit_hours * HOUR
        return float(self.used_seconds / limit) if limit else 1.0

    @property
    def used_up(self) -> bool:
        return self.used_seconds >= self.limit_hours * HOUR

    @property
    def words(self) -> str:
        used = Decimal(self.used_seconds) / HOUR
        whose = "Your budget" if self.scope == "user" else f"The budget of team {self.name}"
        return (
            f"{whose} is {_hours(self.limit_hours)} GPU-hours per month, {_hours(used)} are used. "
            f"It renews at {rfc3339(self.renews_at)}."
        )

    def as_json(self) -> dict[str, object]:
        return {
            "scope": self.scope,
            "name": self.name,
            "used_gpu_hours": str(round(Decimal(self.used_seconds) / HOUR, 2)),
            "limit_gpu_hours": str(self.limit_hours),
            "fraction": round(self.fraction, 4),
            "renews_at": rfc3339(self.renews_at),
            "words": self.words,
        }


def _hours(hours: Decimal) -> str:
    return f"{hours:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Decision:
    """Whether a start is allowed. ``kind`` is allowed, notice or refused; the message is for the
    user ("" where there is nothing to say)."""

    kind: str
    message: str
    budgets: tuple[Status, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.kind != "refused"

    def as_json(self) -> dict[str, object]:
        return {
            "decision": self.kind,
            "message": self.message,
            "budgets": [status.as_json() for status in self.budgets],
        }


def judge(budgets: Sequence[Status], gpus: int) -> Decision:
    """What the budgets say to a start with ``gpus`` GPUs. Without GPUs it is always allowed."""
    shown = tuple(budgets)
    if gpus > 0:
        for status in budgets:
            if status.used_up:
                return Decision(
                    "refused",
                    f"{status.words} Servers without GPUs still start; what runs goes on. "
                    "Ask an administrator for more.",
                    shown,
                )
        near = [status for status in budgets if status.fraction >= NOTICE_FRACTION]
        if near:
            words = " ".join(f"{s.words} That is {s.fraction:.0%}." for s in near)
            return Decision("notice", words, shown)
    return Decision("allowed", "", shown)


def statuses(
    engine: Engine, budgets: Budgets, *, user: str = "", team: str = "", now: int | None = None
) -> list[Status]:
    """How the budgets of a user and of a team stand; running servers are included."""
    with engine.connect() as connection:
        month = month_of(database_time(connection) if now is None else now)
    found = []
    for scope, name, limit in (
        ("user", user, budgets.of_user(user) if user else None),
        ("team", team, budgets.of_team(team)),
    ):
        if limit is not None:
            found.append(Status(scope, name, limit, _used(engine, month, scope, name), month.end))
    return found


def _used(engine: Engine, month: Window, scope: str, name: str) -> int:
    return usage(engine, Query(month, (), {scope: (name,)})).total.gpu_seconds


def check(
    engine: Engine,
    budgets: Budgets,
    *,
    user: str,
    team: str = "",
    gpus: int = 1,
    now: int | None = None,
) -> Decision:
    """May ``user`` start a server with ``gpus`` GPUs that is billed to ``team``? Blocking."""
    return judge(statuses(engine, budgets, user=user, team=team, now=now), gpus)
