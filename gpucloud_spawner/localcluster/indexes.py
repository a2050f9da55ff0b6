"""Completion indexes of Jobs as Kubernetes writes them: `0,2-4,7`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

_NUMBER = re.compile("[0-9]{1,9}")


def parse_indexes(text: str, completions: int) -> set[int]:
    """The indexes that a rule names. Raises ValueError with what is wrong with it."""
    found: set[int] = set()
    last = -1
    for interval in text.split(","):
        first, dash, end = interval.partition("-")
        if not first.isdecimal() or (dash and not end.isdecimal()):
            raise ValueError(f'cannot convert string to integer for index: "{interval}"')
        low, high = int(first), int(end or first)
        if high >= completions:
            raise ValueError(f'too large index: "{high}"')
        if low <= last or high < low:
            raise ValueError(f"non-increasing order, previous: {last}, current: {low}")
        found.update(range(low, high + 1))
        last = high
    return found


def known_indexes(text: str, completions: int) -> set[int]:
    """The indexes that a status names, without those that the Job no longer has."""
    found: set[int] = set()
    for interval in text.split(","):
        first, _, end = interval.partition("-")
        low, high = small_number(first), small_number(end or first)
        if low is not None and high is not None:
            found.update(range(low, min(high, completions - 1) + 1))
    return found


def small_number(text: str) -> int | None:
    """What a label, an annotation or a status says in digits; None if that is no small number."""
    return int(text) if _NUMBER.fullmatch(text) else None


def format_indexes(indexes: Iterable[int]) -> str:
    """Three or more in a row as an interval, two as two, as Kubernetes does."""
    parts = []
    numbered = enumerate(sorted(indexes))
    for _, run in itertools.groupby(numbered, key=lambda pair: pair[1] - pair[0]):
        row = [index for _, index in run]
        if len(row) > 2:
            parts.append(f"{row[0]}-{row[-1]}")
        else:
            parts.extend(str(index) for index in row)
    return ",".join(parts)
