"""Exact money: price lists with validity dates, and one rounding at the end.

A price is a whole number of billionths of the currency per GPU-hour (or per GiB-hour); an amount is
GPU-seconds times such a price, a whole number again, so that sums are exact in any order. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation, localcontext

from .usage import HOUR

NANO = 10**9
# One unit of the currency, in amounts: seconds x price per hour.
UNIT = HOUR * NANO
MAX_PRICE = Decimal(1_000_000)  # a currency may have small units
# Amounts are sums over years of all GPUs of a site; 28 digits would do, 60 leave no doubt.
_EXACT = Context(prec=60)


def parse_price(text: str | Decimal | int) -> int:
    """A price such as ``"1.50"`` in billionths. Raises ValueError where it is none.

    Negative, infinite, above MAX_PRICE, or finer than a billionth is none.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a price such as 1.50") from None
    if not value.is_finite() or value < 0:
        raise ValueError(f"the price {text} is not zero or more")
    if value > MAX_PRICE:
        raise ValueError(f"the price {text} is above {MAX_PRICE}")
    return exact_nano(value)


def exact_nano(value: Decimal) -> int:
    """A finite Decimal in billionths. Raises ValueError where it is finer than that."""
    with localcontext(_EXACT):
        nano = value * NANO
        if nano != nano.to_integral_value():
            raise ValueError(f"{value} has more than 9 decimal places")
        return int(nano)


def nano_text(nano: int) -> str:
    """Billionths as text without superfluous zeros, at least two decimals: ``"1.50"``."""
    with localcontext(_EXACT):
        text = format(Decimal(nano) / NANO, ".9f").rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.ljust(2, '0')}"


def to_money(amount: int, digits: int = 2) -> Decimal:
    """An amount in the currency, rounded half up. The only place where money is rounded."""
    smallest = (2 * abs(amount) * 10**digits + UNIT) // (2 * UNIT)
    return Decimal(-smallest if amount < 0 else smallest).scaleb(-digits)  # -0 is 0 in integers


@dataclass(frozen=True)
class Price:
    """One line of the price list. It is never changed; a later line of the same key replaces it.

    "" as profile or product means any. ``source``: "site" (the site file) or "admin" (set by a
    person; goes before the site file until a line with nano None hands back to it).
    """

    kind: str  # "gpu" (per GPU-hour) or "storage" (per GiB-hour)
    source: str
    profile: str
    product: str
    nano: int | None
    valid_from: int

    @property
    def key(self) -> tuple[str, str]:
        return self.profile, self.product

    @property
    def specificity(self) -> int:
        return 2 * bool(self.profile) + bool(self.product)


class PriceList:
    """All lines ever entered, asked for the price at a time."""

    def __init__(self, lines: Iterable[Price]) -> None:
        self.lines = tuple(lines)  # in the order in which they were entered

    def boundaries(self, kind: str) -> list[int]:
        """The times at which any price of a kind changes."""
        return sorted({p.valid_from for p in self.lines if p.kind == kind})

    def active(self, kind: str, source: str, at: int) -> list[Price]:
        """The lines of one source that hold at ``at``: one per key, the most specific key first."""
        latest: dict[tuple[str, str], Price] = {}
        for line in self.lines:
            if line.kind != kind or line.source != source or line.valid_from > at:
                continue
            before = latest.get(line.key)
            if before is None or line.valid_from >= before.valid_from:
                latest[line.key] = line
        held = [line for line in latest.values() if line.nano is not None]
        return sorted(held, key=lambda line: (-line.specificity, line.key))

    def gpu_price(self, profile: str, product: str, start: int, base: int | None, at: int) -> int:
        """Billionths per GPU-hour at ``at`` of an interval that began at ``start``.

        ``base`` is the price that its pod was started with: it holds until the list changes.
        """
        for line in self.active("gpu", "admin", at):
            if _fits(line, profile, product):
                return line.nano or 0
        for line in self.active("gpu", "site", at):
            if _fits(line, profile, product) and (base is None or line.valid_from > start):
                return line.nano or 0
        return base or 0

    def storage_price(self, at: int) -> int:
        """Billionths per GiB-hour at ``at``."""
        lines = [*self.active("storage", "admin", at), *self.active("storage", "site", at)]
        return (lines[0].nano or 0) if lines else 0


def _fits(line: Price, profile: str, product: str) -> bool:
    return line.profile in ("", profile) and line.product in ("", product)
