"""Kubernetes quantities ("100m", "1.5Gi", "2e3") as exact numbers. No resource policy here."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_SCALE = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@lru_cache(maxsize=4096)
def parse(text: str) -> Fraction:
    """The exact value of a quantity; ValueError if it is none."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, suffix = Fraction(Decimal(match[1])), match[2] or ""
    if suffix in _BINARY:
        return number * Fraction(1024 ** _BINARY[suffix])
    exponent = _SCALE[suffix] if suffix in _SCALE else int(suffix[1:] or 0)
    scale = Fraction(10 ** abs(exponent))
    return number * scale if exponent >= 0 else number / scale


def amount(resource: str, text: str | int | float) -> int:
    """In the unit a scheduler counts in, rounded up: millicores for cpu, whole units otherwise."""
    value = parse(str(text))
    return math.ceil(value * 1000) if resource == "cpu" else math.ceil(value)
