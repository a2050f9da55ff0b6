from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud_spawner.model.units import parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20Gi", 20 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500m", Decimal("0.5")),
        ("2", 2),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1M", 10**6),
        (4, 4),
    ],
)
def test_quantities_mean_what_kubernetes_says(text: str, number: object) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "10gb", "1Ki2", "--1", "1e", "ten", "1\n"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantity|unit"):
        parse_quantity(text)


@given(st.integers(0, 10**6))
def test_binary_units_are_exact(number: int) -> None:
    assert parse_quantity(f"{number}Mi") == parse_quantity(f"{number * 1024}Ki")
