"""Prices and money: exact sums, one rounding, history that no later line changes."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.model.pricing import (
    NANO,
    UNIT,
    Price,
    PriceList,
    nano_text,
    parse_price,
    to_money,
)


def gpu(
    source: str, nano: int | None, valid_from: int, profile: str = "", product: str = ""
) -> Price:
    return Price("gpu", source, profile, product, nano, valid_from)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1.50", 1_500_000_000),
        ("0", 0),
        ("0.000000001", 1),
        (Decimal("2"), 2 * NANO),
        (3, 3 * NANO),
    ],
)
def test_prices_are_exact(text: str | Decimal | int, nano: int) -> None:
    assert parse_price(text) == nano
    assert parse_price(nano_text(nano)) == nano


@pytest.mark.parametrize("text", ["-1", "x", "", "NaN", "Infinity", "1e7", "0.0000000001", "1,5"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(ValueError, match=r"price|decimal"):
        parse_price(text)


@given(st.integers(0, 10**13))
def test_a_price_survives_being_written_down(nano: int) -> None:
    assert parse_price(nano_text(nano)) == nano
    assert "." in nano_text(nano)


def test_money_is_rounded_half_up() -> None:
    assert to_money(UNIT // 200) == Decimal("0.01")  # half a cent
    assert to_money(UNIT // 200 - 1) == Decimal("0.00")
    assert to_money(-(UNIT // 200)) == Decimal("-0.01")
    assert str(to_money(-1)) == "0.00"
    assert to_money(3 * UNIT, 0) == Decimal(3)
    assert to_money(90 * NANO * 10**12) == Decimal(10**12 // 40)


def test_the_price_of_the_start_holds_until_the_list_changes() -> None:
    prices = PriceList([gpu("site", 10, 0, "tf"), gpu("site", 20, 500, "tf")])
    assert [prices.gpu_price("tf", "", 100, 7, at) for at in (100, 499, 500)] == [7, 7, 20]
    # a pod that began under the new price
    assert prices.gpu_price("tf", "", 600, 20, 700) == 20
    # one without a price of its own: the list's
    assert [prices.gpu_price("tf", "", 100, None, at) for at in (100, 500)] == [10, 20]
    assert prices.gpu_price("other", "", 100, None, 500) == 0


def test_an_admins_price_goes_before_the_site_file_until_it_is_handed_back() -> None:
    prices = PriceList([gpu("site", 10, 0), gpu("admin", 99, 300), gpu("admin", None, 400)])
    assert [prices.gpu_price("tf", "", 200, 10, at) for at in (299, 300, 399, 400)] == [
        10, 99, 99, 10,
    ]  # fmt: skip


def test_the_more_specific_price_holds() -> None:
    lines = [
        gpu("admin", 1, 0),
        gpu("admin", 2, 0, product="A100"),
        gpu("admin", 3, 0, profile="tf"),
        gpu("admin", 4, 0, profile="tf", product="A100"),
    ]
    prices = PriceList(lines)
    assert prices.gpu_price("tf", "A100", 0, None, 5) == 4
    assert prices.gpu_price("tf", "H100", 0, None, 5) == 3
    assert prices.gpu_price("x", "A100", 0, None, 5) == 2
    assert prices.gpu_price("x", "H100", 0, None, 5) == 1


@given(
    st.lists(
        st.builds(
            gpu,
            st.sampled_from(["admin", "site"]),
            st.none() | st.integers(0, 9),
            st.integers(0, 100),
            st.sampled_from(["", "tf"]),
            st.sampled_from(["", "A100"]),
        ),
        max_size=6,
    ),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_a_later_line_never_changes_an_earlier_time(
    lines: list[Price], start: int, entered: int
) -> None:
    """A line begins when it is entered or later: what was before keeps its price."""
    before = PriceList(lines)
    after = PriceList([*lines, gpu("admin", 77, entered), gpu("site", 78, entered, "tf")])
    for at in range(start, entered):
        assert before.gpu_price("tf", "A100", start, 5, at) == after.gpu_price(
            "tf", "A100", start, 5, at
        )
    assert set(after.boundaries("gpu")) == {line.valid_from for line in after.lines}


def test_storage_has_one_price() -> None:
    lines = [Price("storage", "site", "", "", 5, 0), Price("storage", "admin", "", "", 8, 50)]
    prices = PriceList(lines)
    assert [prices.storage_price(at) for at in (0, 49, 50)] == [5, 5, 8]
    assert PriceList([]).storage_price(10) == 0
