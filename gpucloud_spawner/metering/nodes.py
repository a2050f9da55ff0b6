"""Nodes into capacity rows and node losses, so that used and idle add up to what there was.

A node is watched from a fresh list on, never from an old position: its objects carry no time of
change. What happened while nobody looked is bounded by the heartbeat. Runs inside the one writer's
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, func, insert, select, update

from .observe import NodeFacts
from .recorder import record_product, review_node
from .tables import CAPACITY, INTERVAL, NODE_LOSS


def record_node(connection: Connection, node: NodeFacts, at: int) -> bool:
    """Take in a node as it was seen at ``at``; True where that changed the ledger."""
    rows = connection.execute(
        select(CAPACITY).where(CAPACITY.c.node_uid == node.uid, CAPACITY.c.end_at.is_(None))
    ).mappings()
    now_open = {row["resource"]: dict(row) for row in rows}
    changed = False
    for resource in sorted(set(node.gpus) | set(now_open)):
        gpus, row = node.gpus.get(resource, 0), now_open.get(resource)
        if row and (row["gpus"], row["product"]) == (gpus, node.product):
            continue
        start = node.created_at
        if row:
            start = max(at, row["start_at"])
            _close(connection, row["id"], row["start_at"], start, "changed")
        elif _had_rows(connection, node.uid, resource):
            start = at
        if gpus:
            _open(connection, node, resource, gpus, start)
        changed = True
    if node.product and changed:
        record_product(connection, node.name, node.product)
    return _record_readiness(connection, node) or changed


def _had_rows(connection: Connection, uid: str, resource: str) -> bool:
    query = select(func.count()).where(CAPACITY.c.node_uid == uid, CAPACITY.c.resource == resource)
    return bool(connection.scalar(query))


def _open(connection: Connection, node: NodeFacts, resource: str, gpus: int, start: int) -> None:
    values = {"node": node.name, "product": node.product, "gpus": gpus}
    connection.execute(
        insert(CAPACITY).values(
            node_uid=node.uid,
            resource=resource,
            start_at=start,
            end_at=None,
            end_source="",
            **values,
        )
    )


def _close(connection: Connection, row_id: int, start: int, end: int, source: str) -> None:
    if end <= start and source == "changed":
        # two changes within a second: the first never counted
        connection.execute(CAPACITY.delete().where(CAPACITY.c.id == row_id))
        return
    connection.execute(
        update(CAPACITY)
        .where(CAPACITY.c.id == row_id)
        .values(end_at=max(start, end), end_source=source)
    )


def _record_readiness(connection: Connection, node: NodeFacts) -> bool:
    open_loss = connection.execute(
        select(NODE_LOSS.c.id, NODE_LOSS.c.lost_at).where(
            NODE_LOSS.c.node == node.name, NODE_LOSS.c.back_at.is_(None)
        )
    ).first()
    if node.lost_at is not None:
        return _record_loss(connection, node.name, node.lost_at)
    if open_loss is None:
        return False
    back = max(node.ready_at or node.created_at, node.created_at, open_loss.lost_at)
    connection.execute(update(NODE_LOSS).where(NODE_LOSS.c.id == open_loss.id).values(back_at=back))
    review_node(connection, node.name, open_loss.lost_at)
    return True


def _record_loss(connection: Connection, node: str, lost_at: int) -> bool:
    known = select(NODE_LOSS.c.id).where(
        NODE_LOSS.c.node == node,
        (NODE_LOSS.c.lost_at == lost_at) | NODE_LOSS.c.back_at.is_(None),
    )
    if connection.scalar(known) is not None:
        return False
    connection.execute(insert(NODE_LOSS).values(node=node, lost_at=lost_at, back_at=None))
    review_node(connection, node, lost_at)
    return True


def record_node_gone(connection: Connection, uid: str, at: int, source: str) -> None:
    """A node object is gone since ``at``: its GPUs, and the pods on it that nobody sees end.

    ``source`` is "deletion" where the deletion was watched, "heartbeat" where it was found later.
    """
    rows = connection.execute(
        select(CAPACITY.c.id, CAPACITY.c.node, CAPACITY.c.start_at).where(
            CAPACITY.c.node_uid == uid, CAPACITY.c.end_at.is_(None)
        )
    ).all()
    for row_id, node, start in rows:
        # a pod that is known to have ended later proves that the node was still there
        last = connection.scalar(
            select(func.max(INTERVAL.c.finished_at)).where(
                INTERVAL.c.node == node, INTERVAL.c.start_at >= start, INTERVAL.c.gpus > 0
            )
        )
        _close(connection, row_id, start, max(at, last or 0), source)
        _record_loss(connection, node, at)


def open_nodes(connection: Connection) -> set[str]:
    """The uids of the nodes that carry GPUs, as far as the ledger knows."""
    return set(connection.scalars(select(CAPACITY.c.node_uid).where(CAPACITY.c.end_at.is_(None))))


def products(nodes: Iterable[NodeFacts]) -> dict[str, str]:
    """The GPU product of each node by its name."""
    return {node.name: node.product for node in nodes if node.product}
