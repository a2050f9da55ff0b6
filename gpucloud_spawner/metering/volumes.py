"""Claims into volume rows: one row per size, whole GiB, level-triggered and idempotent.

A claim never shrinks. The first size counts from the claim's creation, each larger one from the
moment at which it was first seen. Runs inside the one writer's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from .observe import ClaimFacts
from .recorder import chunks
from .tables import VOLUME

_WHOSE = ("namespace", "claim", "owner", "team", "app", "profile")


def record_claims(connection: Connection, observed: Iterable[ClaimFacts], *, heartbeat: int) -> int:
    """Take in what was observed; returns the number of rows added or changed."""
    by_claim: dict[str, list[ClaimFacts]] = {}
    for facts in observed:
        by_claim.setdefault(facts.uid, []).append(facts)
    count = 0
    for uids in chunks(list(by_claim)):
        found = connection.execute(select(VOLUME).where(VOLUME.c.uid.in_(uids)))
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in found.mappings():
            rows.setdefault(row["uid"], []).append(dict(row))
        wanted = [
            line for uid in uids for line in _lines(by_claim[uid], rows.get(uid, []), heartbeat)
        ]
        count += _store(connection, wanted, rows)
    return count


def _lines(
    observed: Sequence[ClaimFacts], rows: Sequence[Mapping[str, Any]], heartbeat: int
) -> list[dict[str, Any]]:
    """All rows of one claim as they must be after ``observed``."""
    first_seen = {row["gib"]: row["first_seen"] for row in rows}
    for facts in observed:
        if facts.gib is not None:
            first_seen[facts.gib] = min(first_seen.get(facts.gib, facts.seen_at), facts.seen_at)
    if not first_seen:
        return []  # never bound to a volume
    oldest = rows[0] if rows else None
    whose = {k: oldest[k] if oldest else getattr(observed[0], k) for k in _WHOSE}
    created_at = min([f.created_at for f in observed] + [r["created_at"] for r in rows])
    deletions = [f.deleted_at for f in observed] + [r["deleted_at"] for r in rows]
    deleted_at = min((d for d in deletions if d is not None), default=None)
    was_gone = any(row["gone"] for row in rows)
    gone = was_gone or any(f.gone for f in observed)
    last_seen = max((r["last_seen"] or 0 for r in rows), default=0) or None
    if gone and not was_gone and rows:
        last_seen = max(last_seen or 0, heartbeat)
    end_at, end_source = None, ""
    if deleted_at is not None:
        end_at, end_source = deleted_at, "deletion"
    elif gone:
        end_at, end_source = last_seen or created_at, "heartbeat"
    sizes = sorted(first_seen)
    starts = [created_at, *(first_seen[size] for size in sizes[1:])]
    lines = []
    for index, (size, start) in enumerate(zip(sizes, starts, strict=True)):
        following = starts[index + 1] if index + 1 < len(starts) else None
        end, source = end_at, end_source
        if following is not None and (end is None or following <= end):
            end, source = following, "grown"
        lines.append(
            {
                "uid": observed[0].uid,
                "gib": size,
                "created_at": created_at,
                "first_seen": first_seen[size],
                "deleted_at": deleted_at,
                "gone": gone,
                "last_seen": last_seen,
                "start_at": start,
                "end_at": None if end is None else max(end, start),
                "end_source": source,
                **whose,
            }
        )
    return lines


def _store(
    connection: Connection,
    wanted: Sequence[dict[str, Any]],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> int:
    existing = {(row["uid"], row["gib"]): row for group in rows.values() for row in group}
    added, changed = [], []
    for line in wanted:
        row = existing.get((line["uid"], line["gib"]))
        if row is None:
            added.append(line)
        elif any(row[k] != v for k, v in line.items()):
            changed.append({**line, "row_id": row["id"]})
    if added:
        connection.execute(insert(VOLUME), added)
    if changed:
        names = [n for n in changed[0] if n != "row_id"]
        connection.execute(
            update(VOLUME)
            .where(VOLUME.c.id == bindparam("row_id"))
            .values({n: bindparam(n) for n in names}),
            changed,
        )
    return len(added) + len(changed)


def open_claims(connection: Connection) -> set[str]:
    """The claims that exist, as far as the ledger knows."""
    return set(
        connection.scalars(
            select(VOLUME.c.uid).where(VOLUME.c.gone.is_(False), VOLUME.c.deleted_at.is_(None))
        )
    )


def record_gone_claims(connection: Connection, uids: Iterable[str], *, heartbeat: int) -> int:
    """Close claims that the cluster no longer has and whose deletion nobody saw."""
    count = 0
    for part in chunks(sorted(uids)):
        found = connection.execute(
            select(VOLUME.c.uid, VOLUME.c.created_at).where(VOLUME.c.uid.in_(part)).distinct()
        )
        facts = [
            replace(_NOBODY, uid=uid, created_at=created, seen_at=created) for uid, created in found
        ]
        count += record_claims(connection, facts, heartbeat=heartbeat)
    return count


_NOBODY = ClaimFacts("", "", "", "", "", "", "", 0, None, 0, None, True)
