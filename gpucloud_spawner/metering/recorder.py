"""Pod facts into interval rows: level-triggered, idempotent, in any order.

Every function runs inside a transaction of the one writer (`lease.write`). What is known of a pod
already is merged with what is new; the row's start and end follow from the result. How facts are
read from pods is in `observe`, when they arrive in `sources`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update

from ..model.usage import Loss, PodFacts, end_of, merge
from .tables import CAPACITY, INTERVAL, NODE_LOSS

# SQLite takes at most 32766 parameters in one statement.
_CHUNK = 500

_FACTS = tuple(f.name for f in fields(PodFacts))


@dataclass(frozen=True)
class Recorded:
    """What a batch did to the ledger."""

    new: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    changed: int = 0


def chunks(items: Sequence[Any], size: int = _CHUNK) -> Iterable[Sequence[Any]]:
    """``items`` in pieces that fit into one statement."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


def record_pods(
    connection: Connection, observed: Iterable[PodFacts], *, heartbeat: int, source: str
) -> Recorded:
    """Take in what was observed. ``heartbeat``: until when open pods were known to be there.

    Pods that no node was found for are not recorded: they hold nothing.
    """
    batch: dict[str, PodFacts] = {}
    for facts in observed:
        before = batch.get(facts.uid)
        batch[facts.uid] = merge(before, facts) if before else facts
    result = Recorded()
    for uids in chunks(list(batch)):
        part = _record(connection, [batch[uid] for uid in uids], heartbeat, source)
        result = Recorded(
            result.new + part.new, result.closed + part.closed, result.changed + part.changed
        )
    return result


def _record(
    connection: Connection, batch: Sequence[PodFacts], heartbeat: int, source: str
) -> Recorded:
    rows = _rows(connection, [facts.uid for facts in batch])
    merged = [_merged(facts, rows.get(facts.uid), heartbeat) for facts in batch]
    merged = [facts for facts in merged if facts.start_at is not None]
    losses = load_losses(connection, {facts.node for facts in merged})
    added, changed, closed = [], [], []
    for facts in merged:
        row = rows.get(facts.uid)
        values = _values(facts, losses.get(facts.node, ()))
        if row is None:
            added.append({**values, "recorded_by": source})
        elif any(row[k] != v for k, v in values.items()):
            changed.append({**values, "row_uid": facts.uid})
        if values["end_at"] is not None and (row is None or row["end_at"] is None):
            closed.append(facts.uid)
    if added:
        connection.execute(insert(INTERVAL), added)
    _update(connection, changed)
    _stretch_capacity(connection, merged)
    return Recorded(tuple(row["uid"] for row in added), tuple(closed), len(changed))


def _rows(connection: Connection, uids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    found = connection.execute(select(INTERVAL).where(INTERVAL.c.uid.in_(uids)))
    return {row["uid"]: dict(row) for row in found.mappings()}


def facts_of(row: Mapping[str, Any]) -> PodFacts:
    """The facts that a row keeps."""
    return PodFacts(**{name: row[name] for name in _FACTS})


def _merged(facts: PodFacts, row: Mapping[str, Any] | None, heartbeat: int) -> PodFacts:
    if row is None:
        return facts
    known = facts_of(row)
    if facts.gone and not known.gone and row["end_at"] is None:
        # it was open until now, so it was there at the heartbeat
        known = replace(known, last_seen=max(known.last_seen or 0, heartbeat))
    return merge(known, facts)


def _values(facts: PodFacts, losses: Sequence[Loss]) -> dict[str, Any]:
    end = end_of(facts, losses)
    values = {name: getattr(facts, name) for name in _FACTS}
    values["end_at"] = end.at if end else None
    values["end_source"] = end.source if end else ""
    return values


def _update(connection: Connection, changed: Sequence[Mapping[str, Any]]) -> None:
    if not changed:
        return
    names = [name for name in changed[0] if name not in ("uid", "row_uid")]
    statement = (
        update(INTERVAL)
        .where(INTERVAL.c.uid == bindparam("row_uid"))
        .values({name: bindparam(name) for name in names})
    )
    rows = [{k: v for k, v in row.items() if k != "uid"} for row in changed]
    connection.execute(statement, rows)


def open_uids(connection: Connection) -> set[str]:
    """The pods that hold their GPUs, as far as the ledger knows."""
    return set(connection.scalars(select(INTERVAL.c.uid).where(INTERVAL.c.end_at.is_(None))))


def known_uids(connection: Connection, uids: Sequence[str]) -> set[str]:
    """Those of ``uids`` that have a row."""
    known: set[str] = set()
    for part in chunks(uids):
        known |= set(connection.scalars(select(INTERVAL.c.uid).where(INTERVAL.c.uid.in_(part))))
    return known


def record_gone(
    connection: Connection, uids: Iterable[str], *, heartbeat: int, source: str
) -> Recorded:
    """Close pods that the cluster no longer has and whose end nobody saw."""
    facts = [PodFacts(uid=uid, gone=True) for uid in sorted(uids)]
    return record_pods(connection, facts, heartbeat=heartbeat, source=source)


def record_seen(connection: Connection, at: int) -> None:
    """Every open pod was there at ``at``: a complete list had it."""
    connection.execute(
        update(INTERVAL)
        .where(
            INTERVAL.c.end_at.is_(None),
            or_(INTERVAL.c.last_seen.is_(None), INTERVAL.c.last_seen < at),
        )
        .values(last_seen=at)
    )


def record_product(connection: Connection, node: str, product: str) -> None:
    """Fill in the product of intervals that were recorded before their node was known."""
    connection.execute(
        update(INTERVAL)
        .where(INTERVAL.c.node == node, INTERVAL.c.product == "", INTERVAL.c.gpus > 0)
        .values(product=product)
    )


def load_losses(connection: Connection, nodes: Iterable[str]) -> dict[str, list[Loss]]:
    """When the given nodes were lost."""
    found: dict[str, list[Loss]] = {}
    for part in chunks(sorted(nodes)):
        query = select(NODE_LOSS.c.node, NODE_LOSS.c.lost_at, NODE_LOSS.c.back_at).where(
            NODE_LOSS.c.node.in_(part)
        )
        for node, lost, back in connection.execute(query):
            found.setdefault(node, []).append((lost, back))
    return found


def review_node(connection: Connection, node: str, since: int) -> None:
    """Derive the ends on a node again after what is known about its losses has changed."""
    query = select(INTERVAL).where(
        INTERVAL.c.node == node, INTERVAL.c.end_at >= since, INTERVAL.c.finished_at.is_(None)
    )
    losses = load_losses(connection, {node}).get(node, [])
    changed = []
    for row in map(dict, connection.execute(query).mappings()):
        values = _values(facts_of(row), losses)
        if any(row[k] != v for k, v in values.items()):
            changed.append({**values, "row_uid": row["uid"]})
    _update(connection, changed)


def _stretch_capacity(connection: Connection, merged: Sequence[PodFacts]) -> None:
    """A node whose end nobody saw lived at least as long as its last pod did."""
    latest: dict[str, int] = {}
    for facts in merged:
        if facts.gpus and facts.finished_at is not None:
            latest[facts.node] = max(latest.get(facts.node, 0), facts.finished_at)
    if not latest:
        return
    newest = (
        select(func.max(CAPACITY.c.id))
        .where(CAPACITY.c.node == bindparam("name"))
        .group_by(CAPACITY.c.resource)
    )
    connection.execute(
        update(CAPACITY)
        .where(
            CAPACITY.c.id.in_(newest),
            CAPACITY.c.end_source != "changed",
            CAPACITY.c.end_at < bindparam("until"),
        )
        .values(end_at=bindparam("until")),
        [{"name": node, "until": until} for node, until in latest.items()],
    )
