"""Kubernetes quantities ("500m", "64Mi", "2e3"): reading them exactly, writing them canonically,
counting with them. No resource policy here.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache

PATTERN = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
LONGEST = 64  # characters; far more than any amount needs, and cheap to compute with
_SHAPE = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(.*)", re.ASCII)
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)", re.ASCII)
_BINARY = {s: 1024**i for i, s in enumerate(["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])}
_DECIMAL = {
    s: Fraction(1000) ** i
    for i, s in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3)
}


class QuantityError(ValueError):
    """The text is no quantity; the message is Kubernetes'."""

    def __init__(self) -> None:
        super().__init__(f"quantities must match the regular expression '{PATTERN}'")


def _split(text: str) -> tuple[Fraction, str]:
    match = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
    if not match:
        raise QuantityError
    return Fraction(match[1]), match[2]


@lru_cache(maxsize=4096)
def parse(text: str) -> Fraction:
    """The exact value of a quantity; QuantityError (a ValueError) if it is none."""
    number, suffix = _split(text)
    if suffix in _DECIMAL:
        return number * _DECIMAL[suffix]
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    exponent = _EXPONENT.fullmatch(suffix)
    if not exponent or abs(int(exponent[1])) > 30:
        raise QuantityError
    return number * Fraction(10) ** int(exponent[1])


def amount(resource: str, text: str | int | float) -> int:
    """In the unit a scheduler counts in, rounded up: millicores for cpu, whole units otherwise."""
    value = parse(str(text))
    return math.ceil(value * 1000) if resource == "cpu" else math.ceil(value)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The form in which Kubernetes returns a quantity: 0.5 -> 500m, 1024Mi -> 1Gi."""
    value = parse(text)
    suffix = _split(text)[1]
    binary = suffix in _BINARY and suffix != ""
    if binary and abs(value) >= 1024 and value.denominator == 1:
        return _largest_unit(int(value), [(s, f) for s, f in _BINARY.items()])
    exponent = _EXPONENT.fullmatch(suffix)
    nano = _round_away(value * 10**9)
    units = [(s, int(f * 10**9)) for s, f in _DECIMAL.items()]
    written = _largest_unit(nano, units)
    return _as_exponent(written) if exponent else written


def _round_away(value: Fraction) -> int:
    """Kubernetes keeps nine decimals and rounds away from zero."""
    whole = abs(value.numerator) // value.denominator
    if whole * value.denominator != abs(value.numerator):
        whole += 1
    return whole if value >= 0 else -whole


def _largest_unit(value: int, units: list[tuple[str, int]]) -> str:
    if value == 0:
        return "0"
    suffix, factor = max(((s, f) for s, f in units if value % f == 0), key=lambda unit: unit[1])
    return f"{value // factor}{suffix}"


def _as_exponent(written: str) -> str:
    for i, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3):
        if suffix and written.endswith(suffix):
            return f"{written[: -len(suffix)]}e{3 * i}"
    return written
