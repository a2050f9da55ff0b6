"""What may be asked of the ledger: a checked question. No SQL here.

Everything that comes from a person ends in `Query.parse`; a mistake is a LedgerError that names
what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..model.usage import DAY, Window, epoch, month_of, month_window
from .errors import LedgerError, not_allowed

# What a statement can be grouped by, in the order of its columns.
DIMENSIONS = ("user", "team", "app", "job", "component", "profile", "product")
PERIODS = ("day", "month")
GROUPS = (*DIMENSIONS, *PERIODS)
FILTERS = DIMENSIONS
MAX_DAYS = 366 * 3
MAX_DAYS_BY_DAY = 400
MAX_PAGE = 1000
DEFAULT_CURRENCY = "EUR"


@dataclass(frozen=True)
class Query:
    """A window, what to group by, and what to keep: any of the values of each filter."""

    window: Window
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        *,
        group_by: str | Iterable[str] = (),
        start: str | datetime | None = None,
        end: str | datetime | None = None,
        month: str | None = None,
        filters: Mapping[str, str | Iterable[str]] | None = None,
        now: int | None = None,
    ) -> Query:
        """A question as a person puts it: ``group_by="user,team"``, RFC 3339 times or a month.

        Without times: the calendar month (UTC) of ``now``, by default the present one. Raises
        LedgerError.
        """
        groups = _groups(group_by)
        window = _window(start, end, month, now)
        limit = MAX_DAYS_BY_DAY if "day" in groups else MAX_DAYS
        if window.seconds > limit * DAY:
            raise LedgerError(
                "window_too_long",
                f"The time asked for is longer than {limit} days. Ask for a shorter one.",
                max_days=limit,
            )
        return cls(window, groups, _filters(filters or {}))


def _groups(group_by: str | Iterable[str]) -> tuple[str, ...]:
    names = group_by.split(",") if isinstance(group_by, str) else list(group_by)
    wanted = {name.strip() for name in names if name.strip()}
    for name in sorted(wanted):
        if name not in GROUPS:
            raise not_allowed("unknown_group_by", "group_by", name, GROUPS)
    return tuple(name for name in GROUPS if name in wanted)


def _filters(filters: Mapping[str, str | Iterable[str]]) -> dict[str, tuple[str, ...]]:
    checked = {}
    for name, values in filters.items():
        if name not in FILTERS:
            raise not_allowed("unknown_filter", "Filter", name, FILTERS)
        wanted = (values,) if isinstance(values, str) else tuple(values)
        if len(wanted) > 1000 or any("\0" in value or len(value) > 255 for value in wanted):
            raise LedgerError("bad_filter", f"Filter {name} has a value that no name can have.")
        checked[name] = wanted
    return checked


def _window(
    start: str | datetime | None, end: str | datetime | None, month: str | None, now: int | None
) -> Window:
    if month is not None:
        if start is not None or end is not None:
            raise LedgerError("bad_window", "Give either month, or start and end, not both.")
        try:
            return month_window(month)
        except ValueError as error:
            raise LedgerError("bad_month", f"{error}.", example="2026-11") from error
    if start is None and end is None:
        return month_of(int(datetime.now(UTC).timestamp()) if now is None else now)
    if start is None or end is None:
        raise LedgerError("bad_window", "Give both start and end, or a month.")
    window = Window(to_epoch("start", start), to_epoch("end", end))
    if window.end <= window.start:
        raise LedgerError("end_before_start", "The end is not after the start.")
    return window


def to_epoch(name: str, value: str | datetime) -> int:
    """A time with a zone in seconds. Raises LedgerError on any other."""
    try:
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError(f"{value} has no time zone")
            seconds = int(value.timestamp() // 1)
        else:
            seconds = epoch(value)
    except (ValueError, OverflowError) as error:
        raise LedgerError(
            "bad_time",
            f"{name}: not an RFC 3339 time with a zone, such as 2026-11-23T14:00:00Z.",
            parameter=name,
            example="2026-11-23T14:00:00Z",
        ) from error
    if not 0 <= seconds < 2**33:
        raise LedgerError("bad_time", f"{name} is outside 1970 to 2242.", parameter=name)
    return seconds


def check_page_size(size: int) -> int:
    """A page size from 1 to MAX_PAGE. Raises LedgerError on any other."""
    if not 1 <= size <= MAX_PAGE:
        raise LedgerError(
            "bad_page_size", f"A page has 1 to {MAX_PAGE} lines.", minimum=1, maximum=MAX_PAGE
        )
    return size
