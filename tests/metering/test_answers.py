"""Prices, budgets, sheets and the command line: what people get to see."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from gpucloud_spawner import cli
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.budgets import Budgets, check, judge, statuses
from gpucloud_spawner.metering.lines import intervals
from gpucloud_spawner.metering.prices import price_lines, set_price, sync_site_prices
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.sheets import lines_csv, safe_cell, statement_csv, statement_table
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.model.usage import month_of

from .objects import MONTH, T0, a_pod, beat, ended, running, tell


def test_the_site_file_enters_only_what_has_changed(engine: Engine) -> None:
    assert sync_site_prices(engine, {"tf": "1.50", "cpu": 0}, "0.0002") == 3
    assert sync_site_prices(engine, {"tf": Decimal("1.5"), "cpu": "0.00"}, "0.0002") == 0
    assert sync_site_prices(engine, {"tf": "2"}, None) == 2
    assert [(line["profile"], line["nano"]) for line in price_lines(engine)] == [
        ("tf", 1_500_000_000),
        ("cpu", 0),
        ("", 200_000),
        ("tf", 2_000_000_000),
        ("", None),
    ]


def test_an_admins_price_says_who_and_why(engine: Engine) -> None:
    line = set_price(engine, price="9", profile="tf", actor="root", reason="new contract")
    (stored,) = price_lines(engine)
    assert (stored["actor"], stored["reason"], stored["nano"]) == (
        "root",
        "new contract",
        9 * 10**9,
    )
    assert stored["valid_from"] == line.valid_from
    set_price(engine, price=None, profile="tf", actor="root", reason="back to the site file")
    assert [entry["nano"] for entry in price_lines(engine)] == [9 * 10**9, None]


# --- budgets


def test_budgets_of_users_and_teams(engine: Engine) -> None:
    tell(engine, ended(a_pod(gpus=2), T0 + 3600 * 4))
    month = month_of(T0)
    budgets = Budgets(users={"*": Decimal(10), "alan": Decimal(0)}, teams={"vision": Decimal(8)})
    found = statuses(engine, budgets, user="ada", team="vision", now=T0)
    assert [(s.scope, s.used_seconds, s.limit_hours, s.renews_at) for s in found] == [
        ("user", 8 * 3600, Decimal(10), month.end),
        ("team", 8 * 3600, Decimal(8), month.end),
    ]
    refused = check(engine, budgets, user="ada", team="vision", now=T0)
    assert (refused.kind, refused.allowed) == ("refused", False)
    assert refused.message.startswith(
        "The budget of team vision is 8 GPU-hours per month, 8 are used. It renews at 2026-12-01T"
    )
    assert check(engine, budgets, user="ada", team="vision", gpus=0, now=T0).kind == "allowed"
    notice = check(engine, budgets, user="ada", team="", now=T0)
    assert (notice.kind, notice.allowed) == ("notice", True)
    assert "Your budget is 10 GPU-hours per month, 8 are used." in notice.message
    assert "80%" in notice.message
    assert check(engine, budgets, user="alan", now=T0).kind == "refused"
    assert check(engine, budgets, user="ada", team="vision", now=month.end).kind == "allowed"
    assert check(engine, Budgets(), user="ada", team="vision", now=T0).kind == "allowed"


def test_what_runs_counts_towards_the_budget(engine: Engine) -> None:
    tell(engine, running(a_pod(), T0 + 1))
    budgets = Budgets(users={"ada": Decimal(1)})
    for seconds, kind in ((2879, "allowed"), (2880, "notice"), (3599, "notice"), (3600, "refused")):
        with db.writing(engine).begin() as connection:
            beat(connection, T0 + seconds)
        assert check(engine, budgets, user="ada", now=T0).kind == kind


def test_judging_is_pure() -> None:
    assert judge([], 4).allowed


# --- sheets


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\n=1", "＝1", '=HYPERLINK("x")'],  # noqa: RUF001
)
def test_no_cell_is_a_formula(engine: Engine, text: str) -> None:
    assert safe_cell(text) == "'" + text
    tell(engine, ended(a_pod(user=text, team=text, app=text), T0 + 10))
    by_user = statement_csv(usage(engine, Query(MONTH, ("user", "team"))))
    single = lines_csv(intervals(engine, Query(MONTH)).lines)
    for sheet in (by_user, single):
        for row in csv.reader(io.StringIO(sheet, newline="")):
            assert not any(c.lstrip(" ").startswith(("=", "+", "@", "\t", "\r", "＝")) for c in row)  # noqa: RUF001
            assert text not in row
            for cell in row:
                assert not cell.startswith("-") or cell.lstrip("-").replace(".", "").isdigit()


def test_a_csv_statement_adds_up(engine: Engine) -> None:
    for index, user in enumerate(("ada", "alan", "kurt")):
        tell(engine, ended(a_pod(f"u{index}", user=user), T0 + 8))
    with db.writing(engine).begin() as connection:
        beat(connection, T0 + 100)
    rows = list(csv.DictReader(io.StringIO(statement_csv(usage(engine, Query(MONTH, ("user",)))))))
    assert [row["user"] for row in rows] == ["ada", "alan", "kurt", "rounding", "total"]
    *parts, total = (Decimal(row["cost"]) for row in rows)
    assert parts == [Decimal("0.00")] * 3 + [Decimal("0.01")]
    assert sum(parts) == total
    assert sum(int(row["gpu_seconds"]) for row in rows[:-1]) == int(rows[-1]["gpu_seconds"]) == 24


def test_a_table_shows_no_control_characters(engine: Engine) -> None:
    tell(engine, ended(a_pod(user="a\x1b[2Jb"), T0 + 3600))
    table = statement_table(usage(engine, Query(MONTH, ("user",))))
    assert "\x1b" not in table
    assert table.splitlines()[2].split() == ["a?[2Jb", "1.00", "0.00", "1.50"]


# --- the command line


def test_the_command_line(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    tell(engine, ended(a_pod(), T0 + 3600))
    url = engine.url.render_as_string(hide_password=False)
    assert cli.main(["db", "current", "--db", url]) == 0
    assert capsys.readouterr().out.strip() == db.head()
    assert cli.main(["db", "upgrade", "--db", url]) == 0
    arguments = ["usage", "--db", url, "--by", "team", "--month", "2026-11", "--format", "csv"]
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1] == "vision,3600,0,1.50,EUR,no"
    assert cli.main([*arguments[:-2], "--user", "nobody"]) == 0
    assert "total" in capsys.readouterr().out
    assert cli.main(["usage", "--db", url, "--by", "planet"]) == 1
    assert "Allowed: user, team" in capsys.readouterr().err


def test_the_command_line_says_which_database_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("GPUCLOUD_DATA", str(tmp_path))
    monkeypatch.delenv("GPUCLOUD_DB_URL", raising=False)
    assert cli.main(["usage"]) == 1
    assert "GPUCLOUD_DB_URL" in capsys.readouterr().err
