"""Kubernetes quantities ("20Gi", "500m") as exact numbers, and bytes for people."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)([a-zA-Z]*|[eE][+-]?\d+)")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_quantity(quantity: str | int | float) -> Decimal:
    """The number that a Kubernetes quantity means, e.g. ``"20Gi"`` -> 21474836480 (bytes).

    Raises ValueError where the text is no quantity.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if not found:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity such as '20Gi' or '500m'")
    number, suffix = found.groups()
    if suffix in _SUFFIXES:
        return Decimal(number) * _SUFFIXES[suffix]
    if re.fullmatch(r"[eE][+-]?\d+", suffix):
        return Decimal(number + suffix)
    raise ValueError(f"{quantity!r} has no known unit: use one of Ki, Mi, Gi, Ti, k, M, G, T, m")


def parse_memory(text: str) -> int:
    """Bytes of a size as profiles write it: "8G" (K, M, G, T: powers of 1024, as JupyterHub's own
    settings), or of a Kubernetes quantity "8Gi".

    Raises ValueError where the text is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)i?", text, re.ASCII)
    if not found:
        raise ValueError(f"{text!r} is not a size such as '8G' or '512M'")
    number, suffix = found.groups()
    return int(Decimal(number) * 1024 ** " KMGT".index(suffix or " "))
