"""The REST API on real statements: figures, formats, bad input, money, and its own description."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import jsonschema
import pytest

from gpucloud_spawner.model.usage import rfc3339
from gpucloud_spawner.portal.openapi import document
from gpucloud_spawner.portal.routes import ROUTES
from tests.e2e.cloud import wait_for

from .conftest import Ask, Site


def test_a_statement_has_the_contract_s_shape(ask: Ask) -> None:
    answer = ask("admin", "api/usage?group_by=user,team&month=2025-10&user=ada").json()
    assert (answer["start"], answer["end"]) == ("2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z")
    assert answer["currency"] == "CHF"
    rows = [(r["user"], r["team"], r["gpu_seconds"], r["cost"]) for r in answer["rows"]]
    assert rows == [("ada", "", 7200, "4.00"), ("ada", "vision", 7200, "4.00")]
    assert answer["total"]["cost"] == "8.00"


def test_a_window_clips(ask: Ask) -> None:
    window = "start=2025-10-07T10:30:00Z&end=2025-10-07T11:00:00Z"
    answer = ask("ada", f"api/usage?{window}").json()
    assert answer["total"]["gpu_seconds"] == 1800


def test_csv_has_no_formulas(ask: Ask) -> None:
    answer = ask("ada", "api/usage?group_by=app&month=2025-10&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "usage-2025-10-01-to-2025-11-01.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["app"], row["gpu_seconds"]) for row in rows] == [
        ("'=cmd()", "7200"),
        ("train", "7200"),
        ("total", "14400"),
    ]


def test_pages_of_lines_add_up_to_the_statement(ask: Ask) -> None:
    seconds, cursor, pages = 0, "", 0
    while pages == 0 or cursor:
        page = ask("admin", f"api/usage/intervals?month=2025-10&page_size=1&cursor={cursor}").json()
        seconds += sum(line["gpu_seconds"] for line in page["lines"])
        cursor, pages = page["next"], pages + 1
    total = ask("admin", "api/usage?month=2025-10").json()["total"]
    assert (pages, seconds) == (4, total["gpu_seconds"])
    lines = ask("admin", "api/usage/intervals?month=2025-10&page_size=3&format=csv")
    assert lines.headers["X-Next-Cursor"]
    assert len(lines.text.splitlines()) == 4


BAD = [
    ("api/usage?group_by=users", "unknown_group_by", "user"),
    ("api/usage?start=2025-10-07T10:00:00Z&end=2025-10-07T09:00:00Z", "end_before_start", None),
    ("api/usage?start=2025-10-07T10:00:00&end=2025-10-08T10:00:00", "bad_time", None),
    ("api/usage?start=2025-10-07T10:00:00Z", "bad_window", None),
    ("api/usage?month=2025-13", "bad_month", None),
    ("api/usage?month=2025-10&month=2025-11", "repeated_parameter", None),
    ("api/usage?format=xml", "bad_value", "csv"),
    ("api/usage?usr=ada", "unknown_parameter", "user"),
    ("api/usage?user=%00", "bad_filter", None),
    ("api/usage/intervals?page_size=0", "bad_page_size", None),
    ("api/usage/intervals?page_size=1000000", "bad_page_size", None),
    ("api/usage/intervals?page_size=-9999999999999999999", "bad_value", None),
    ("api/usage/intervals?page_size=٣", "bad_value", None),
    ("api/usage/intervals?cursor=xyz", "bad_cursor", None),
    ("api/usage/capacity?group_by=user", "unknown_group_by", "product"),
    ("api/budgets?scope=mine", "bad_value", "own"),
    ("api/gpus?node=1", "unknown_parameter", None),
]


@pytest.mark.parametrize(("path", "code", "allowed"), BAD)
def test_bad_questions(ask: Ask, path: str, code: str, allowed: str | None) -> None:
    answer = ask("admin", path)
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["code"] == code
    if allowed:
        assert allowed in body["details"]["allowed"]


def test_sql_in_a_name_is_a_name(ask: Ask) -> None:
    answer = ask("admin", "api/usage", params={"user": "x' OR '1'='1", "month": "2025-10"})
    assert answer.json()["total"]["gpu_seconds"] == 0


REASON = {"reason": "a test"}
BAD_BODIES: list[tuple[str, Any, str | None]] = [
    ("api/prices", {"price": "-1", **REASON}, "bad_price"),
    ("api/prices", {"price": "1e400", **REASON}, "bad_price"),
    ("api/prices", {"price": 1.5, **REASON}, "bad_value"),
    ("api/prices", {"price": "1"}, "missing"),
    ("api/prices", {"price": "1", "reason": " "}, "bad_reason"),
    ("api/prices", {"price": "1", "kind": "cpu", **REASON}, "bad_value"),
    ("api/prices", {"price": "1", "prize": "1", **REASON}, "unknown_field"),
    (
        "api/prices",
        {"price": "1", "valid_from": "2020-01-01T00:00:00Z", **REASON},
        "price_in_the_past",
    ),
    ("api/prices", {"price": "1", "valid_from": "tomorrow", **REASON}, "bad_time"),
    ("api/prices", ["price"], "not_json"),
    ("api/adjustments", {"user": "ada", "gpu_seconds": 10**6 * 3600, **REASON}, None),
    ("api/adjustments", {"user": "ada", "gpu_seconds": 10**60, **REASON}, "bad_value"),
    ("api/adjustments", {"user": "ada", "gpu_seconds": True, **REASON}, "bad_value"),
    ("api/adjustments", {"user": "ada", "money": "NaN", **REASON}, None),
    ("api/adjustments", {"gpu_seconds": 1, **REASON}, "bad_adjustment"),
    ("api/adjustments", {"interval_uid": "no", "gpu_seconds": 1, **REASON}, "unknown_interval"),
    ("api/adjustments", {"user": "ada", **REASON}, "bad_adjustment"),
]


@pytest.mark.parametrize(("path", "body", "code"), BAD_BODIES)
def test_bad_entries_store_nothing(ask: Ask, path: str, body: Any, code: str | None) -> None:
    before = ask("admin", path).json()
    answer = ask("admin", path, "POST", json=body)
    assert answer.status_code == 400, answer.text
    assert code in (None, answer.json()["code"])
    assert ask("admin", path).json() == before


def test_a_form_of_another_site_cannot_post(ask: Ask) -> None:
    answer = ask("admin", "api/prices", "POST", data={"price": "0", "reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


def test_a_body_without_end_is_refused(ask: Ask) -> None:
    answer = ask("admin", "api/prices", "POST", content=b"x" * 2_000_000)
    assert answer.status_code in (400, 413, 503)  # 503: the proxy's words for a closed connection
    assert ask("admin", "health").status_code == 200


def test_an_administrator_sets_a_price_and_it_is_signed(ask: Ask) -> None:
    later = rfc3339(int(time.time()) + 86400)
    body = {"price": "9.99", "product": "H100", "valid_from": later, "reason": "new machines"}
    assert ask("auditor", "api/prices", "POST", json=body).status_code == 201
    line = ask("admin", "api/prices").json()["prices"][-1]
    assert (line["price"], line["product"], line["valid_from"]) == ("9.99", "H100", later)
    assert (line["actor"], line["reason"]) == ("service auditor", "new machines")


def test_a_correction_counts_in_the_statement(ask: Ask) -> None:
    path = "api/usage?month=2025-10&user=bob"
    before = ask("bob", path).json()["total"]["gpu_seconds"]
    body = {
        "user": "bob",
        "gpu_seconds": -40,
        "money": "-0.01",
        "effective_at": "2025-10-09T00:00:00Z",
        "reason": "the node was broken",
    }
    answer = ask("admin", "api/adjustments", "POST", json=body)
    assert answer.status_code == 201
    assert ask("bob", path).json()["total"]["gpu_seconds"] == before - 40
    newest = ask("admin", "api/adjustments?page_size=1").json()["adjustments"]
    assert [(a["id"], a["user"], a["money"], a["actor"]) for a in newest] == [
        (answer.json()["id"], "bob", "-0.01", "admin")
    ]


def test_capacity_is_used_plus_idle(ask: Ask) -> None:
    def rows() -> list[dict[str, Any]]:
        answer = ask("admin", "api/usage/capacity?group_by=product,day").json()
        return [row for row in answer["rows"] if row["product"] == "NVIDIA-FAKE-GPU"]

    [row] = wait_for(rows, "the first heartbeat")[-1:]
    assert row["capacity_gpu_seconds"] > 0
    used_and_idle = row["used_gpu_seconds"] + row["idle_gpu_seconds"]
    assert used_and_idle == row["capacity_gpu_seconds"]
    assert row["day"].count("-") == 2


def test_the_document_and_the_routes_agree_both_ways(ask: Ask, site: Site) -> None:
    served = ask("ada", "api/openapi.json").json()
    assert served == document("/services/gpucloud/", ROUTES)
    told = {(p.removeprefix("/"), m.upper()) for p, ops in served["paths"].items() for m in ops}
    there = {(r.path, m) for r in ROUTES if not r.is_page for m in r.verbs}
    assert told == there
    for path, operations in served["paths"].items():
        for method, operation in operations.items():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    assert f"{{{parameter['name']}}}" in path
                    continue
                query = {parameter["name"]: parameter.get("example", "")}
                answer = ask("admin", path.removeprefix("/"), method.upper(), params=query)
                assert "unknown" not in answer.json().get("code", ""), (path, parameter["name"])
            body = operation.get("requestBody")
            if body:
                jsonschema.Draft202012Validator.check_schema(
                    body["content"]["application/json"]["schema"]
                )


def test_metrics_tell_the_state_of_the_ledger(ask: Ask) -> None:
    wait_for(
        lambda: "gpucloud_ledger_lease_held 1.0" in ask("prometheus", "metrics").text,
        "the service writes the ledger",
    )
    text = ask("prometheus", "metrics").text
    for name in ("open_intervals", "queue_depth", "audit_age_seconds", "events_total"):
        assert f"gpucloud_ledger_{name}" in text
