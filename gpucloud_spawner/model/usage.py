"""When a pod held its GPUs: facts that commute, and the interval that follows from them.

What is known about a pod is a set of facts that only ever grow, so `merge` gives the same result
whatever the order and number of the observations. The interval is a pure function of the facts.
No I/O, no clock, no money (`pricing`), no Kubernetes objects (`metering.observe`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

HOUR = 3600
DAY = 86400

# How a start is known, best first.
START_SOURCES = ("scheduled", "kubelet", "created")
# How an end is known, best first.
END_SOURCES = ("containers", "pod-status", "deletion", "node-loss", "heartbeat")

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def epoch(text: str) -> int:
    """The whole second (UTC, rounded down) of an RFC 3339 time with a zone.

    Raises ValueError otherwise, also for a time without a zone: it could mean anything.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time with a zone: 2026-11-23T14:00:00Z")
    seconds = datetime.fromisoformat(text.upper()).timestamp()
    return int(seconds // 1)


def rfc3339(at: int) -> str:
    """The second ``at`` (UTC) as text, e.g. ``2026-11-23T14:00:00Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Window:
    """The half-open time [start, end) in seconds since 1970 (UTC)."""

    start: int
    end: int

    def clip(self, start: int, end: int) -> Window | None:
        """The part of [start, end) inside this window; None where there is none."""
        low, high = max(self.start, start), min(self.end, end)
        return Window(low, high) if low < high else None

    def split(self, boundaries: Iterable[int]) -> list[Window]:
        """This window cut at every boundary inside it; the parts add up to it."""
        cuts = sorted({b for b in boundaries if self.start < b < self.end})
        edges = [self.start, *cuts, self.end]
        return [Window(a, b) for a, b in itertools.pairwise(edges)]

    def midnights(self) -> Iterator[int]:
        """Every start of a UTC day strictly inside."""
        return iter(range((self.start // DAY + 1) * DAY, self.end, DAY))

    def month_starts(self) -> Iterator[int]:
        """Every start of a UTC calendar month strictly inside."""
        at = month_of(self.start).end
        while at < self.end:
            yield at
            at = month_of(at).end

    @property
    def seconds(self) -> int:
        return self.end - self.start


def day_name(at: int) -> str:
    """The UTC day of a second, e.g. ``2026-11-23``."""
    return rfc3339(at)[:10]


def month_name(at: int) -> str:
    """The UTC calendar month of a second, e.g. ``2026-11``."""
    return rfc3339(at)[:7]


def month_of(at: int) -> Window:
    """The UTC calendar month that the second ``at`` is in."""
    first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return Window(int(first.timestamp()), int(following.timestamp()))


def month_window(name: str) -> Window:
    """The calendar month ``"2026-11"``. Raises ValueError where the text is no month."""
    if not re.fullmatch(r"\d{4}-\d{2}", name, re.ASCII):
        raise ValueError(f"{name!r} is not a month such as 2026-11")
    return month_of(epoch(f"{name}-01T00:00:00Z"))


@dataclass(frozen=True)
class PodFacts:
    """What observations of one pod (one uid) have established. Empty or None: not known (yet)."""

    uid: str
    namespace: str = ""
    pod: str = ""
    node: str = ""
    component: str = ""
    owner: str = ""
    team: str = ""
    app: str = ""
    job: str = ""
    profile: str = ""
    product: str = ""
    resource: str = ""
    gpus: int = 0
    price_nano: int | None = None  # per GPU-hour, in 1e-9 of the currency

    start_at: int | None = None  # bound to its node; None: not bound
    start_source: str = ""  # one of START_SOURCES
    finished_at: int | None = None  # the last container's end, once no other can follow
    ended_alone: bool = False  # its containers were over for good before any deletion
    failed_at: int | None = None  # over by its status, which knows no container's end
    deleted_at: int | None = None  # when its deletion was asked for
    gone: bool = False  # the API server no longer has it
    last_seen: int | None = None  # the latest time at which it is known to have lived


@dataclass(frozen=True)
class End:
    """When an interval ended, and how that is known (one of END_SOURCES)."""

    at: int
    source: str


_FIXED = (
    "namespace",
    "pod",
    "node",
    "component",
    "owner",
    "team",
    "app",
    "job",
    "profile",
    "product",
    "resource",
    "gpus",
)


def merge(one: PodFacts, other: PodFacts) -> PodFacts:
    """What both know. Commutes, is associative and idempotent; whose it is stays as first known."""
    if one.uid != other.uid:
        raise ValueError("facts of two pods cannot be merged")
    start_at, start_source = _better_start(one, other)
    known = {name: getattr(one, name) or getattr(other, name) for name in _FIXED}
    return replace(
        one,
        **known,
        price_nano=one.price_nano if one.price_nano is not None else other.price_nano,
        start_at=start_at,
        start_source=start_source,
        finished_at=_latest(one.finished_at, other.finished_at),
        ended_alone=one.ended_alone or other.ended_alone,
        failed_at=_earliest(one.failed_at, other.failed_at),
        deleted_at=_earliest(one.deleted_at, other.deleted_at),
        gone=one.gone or other.gone,
        last_seen=_latest(one.last_seen, other.last_seen),
    )


def _better_start(one: PodFacts, other: PodFacts) -> tuple[int | None, str]:
    known = [
        (START_SOURCES.index(f.start_source), f.start_at)
        for f in (one, other)
        if f.start_at is not None
    ]
    if not known:
        return None, ""
    rank, at = min(known)
    return at, START_SOURCES[rank]


def _latest(one: int | None, other: int | None) -> int | None:
    return max((t for t in (one, other) if t is not None), default=None)


def _earliest(one: int | None, other: int | None) -> int | None:
    return min((t for t in (one, other) if t is not None), default=None)


Loss = tuple[int, int | None]  # when a node was lost, and when it was back (None: not yet)


def end_of(facts: PodFacts, losses: Sequence[Loss] = ()) -> End | None:
    """The end of the interval; None while the pod holds its GPUs (or was never bound).

    From the containers' own end, else the status, else the deletion, else the last time it was
    seen. An end that the containers did not report is never later than the loss of the node on
    which nobody could see them any more. Never before the start, and never "now".
    """
    if facts.start_at is None:
        return None
    if facts.finished_at is not None:
        at = facts.finished_at
        if not facts.ended_alone and facts.deleted_at is not None:
            # it would have been restarted, so it held its GPUs until somebody deleted it
            at = max(at, facts.deleted_at)
        return End(max(at, facts.start_at), "containers")
    if facts.failed_at is not None:
        end = End(facts.failed_at, "pod-status")
    elif not facts.gone:
        return None
    elif facts.deleted_at is not None:
        end = End(facts.deleted_at, "deletion")
    else:
        end = End(facts.last_seen or facts.start_at, "heartbeat")
    unheard = [
        lost
        for lost, back in losses
        if facts.start_at <= lost < end.at and (back is None or back >= end.at)
    ]
    if unheard:
        end = End(min(unheard), "node-loss")
    return End(max(end.at, facts.start_at), end.source)
