"""The one writer: whole batches into the ledger, each in one fenced transaction. Blocking.

`meter` calls it from its single writer thread. Which event happened when is `sources`' business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from ..model.usage import PodFacts
from .lease import Lease, database_time
from .nodes import open_nodes, record_node, record_node_gone
from .observe import ClaimFacts, GPUResources
from .recorder import (
    Recorded,
    known_uids,
    open_uids,
    record_gone,
    record_pods,
    record_seen,
)
from .sources import Batch, NodeSeen
from .stops import mark_done, read_inbox
from .tables import POSITION
from .volumes import open_claims, record_claims, record_gone_claims

Claims = tuple[ClaimFacts, ...]


@dataclass(frozen=True)
class Stored:
    """What one transaction did."""

    new: int = 0
    closed: int = 0
    open: int = 0


@dataclass(frozen=True)
class Differences:
    """Where the ledger and the cluster do not agree: uids of pods."""

    missing: frozenset[str] = frozenset()  # bound pods without a line
    ended: frozenset[str] = frozenset()  # ended in the cluster, open in the ledger
    vanished: frozenset[str] = frozenset()  # open in the ledger, not in the cluster

    def __bool__(self) -> bool:
        return bool(self.missing or self.ended or self.vanished)


class Writer:
    """All writes of the service. ``products`` is what the node stream knows, by node name."""

    def __init__(self, engine: Engine, lease: Lease, gpus: GPUResources) -> None:
        self._engine = engine
        self._gpus = gpus
        self.lease = lease

    def positions(self) -> dict[str, str | None]:
        """How far each stream was followed by whoever wrote last."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(POSITION.c.stream, POSITION.c.resource_version))
            return {stream: version for stream, version in rows}

    def store(
        self,
        nodes: Batch[NodeSeen],
        claims: Batch[Claims],
        pods: Batch[PodFacts],
        products: Mapping[str, str],
    ) -> Stored:
        """Everything that the streams told, with their positions. Raises LeaseLost."""
        with self.lease.write() as connection:
            beats = heartbeats(connection)
            self._store_nodes(connection, nodes, beats.get("nodes", 0))
            self._store_claims(connection, claims, beats.get("claims", 0))
            recorded = self._store_pods(connection, pods, products, beats.get("pods", 0))
            for name, batch in (("nodes", nodes), ("claims", claims), ("pods", pods)):
                _move_on(connection, name, batch, beats.get(name))
            now_open = len(open_uids(connection)) if recorded.new or recorded.closed else -1
        return Stored(len(recorded.new), len(recorded.closed), now_open)

    def _store_nodes(self, connection: Connection, batch: Batch[NodeSeen], heartbeat: int) -> None:
        for seen in batch.items.values():
            if seen.gone:
                record_node_gone(connection, seen.facts.uid, seen.at, "deletion")
            else:
                record_node(connection, seen.facts, seen.at)
        if batch.listed is not None:
            for uid in open_nodes(connection) - batch.listed - set(batch.items):
                record_node_gone(connection, uid, heartbeat, "heartbeat")

    def _store_claims(self, connection: Connection, batch: Batch[Claims], heartbeat: int) -> None:
        observed = [facts for many in batch.items.values() for facts in many]
        record_claims(connection, observed, heartbeat=heartbeat)
        if batch.listed is not None:
            gone = open_claims(connection) - batch.listed - set(batch.items)
            record_gone_claims(connection, gone, heartbeat=heartbeat)

    def _store_pods(
        self,
        connection: Connection,
        batch: Batch[PodFacts],
        products: Mapping[str, str],
        heartbeat: int,
    ) -> Recorded:
        observed = with_products(batch.items.values(), products)
        recorded = record_pods(connection, observed, heartbeat=heartbeat, source="watch")
        if batch.listed is None:
            return recorded
        gone = open_uids(connection) - batch.listed - set(batch.items)
        more = record_gone(connection, gone, heartbeat=heartbeat, source="watch")
        return Recorded(recorded.new, recorded.closed + more.closed, recorded.changed)

    def store_inbox(self, products: Mapping[str, str], settle: float) -> tuple[int, int, int]:
        """Take in the hub's stop records that are ``settle`` seconds old: how many were read, added
        a line, closed a line."""
        with self.lease.write() as connection:
            until = database_time(connection) - math.ceil(settle)
            ids, facts = read_inbox(connection, self._gpus, until=until)
            beat = heartbeats(connection).get("pods", 0)
            recorded = record_pods(
                connection, with_products(facts, products), heartbeat=beat, source="stop-record"
            )
            mark_done(connection, ids, database_time(connection))
        return len(ids), len(recorded.new), len(recorded.closed)

    # -- the audit

    def open_pods(self) -> set[str]:
        """The pods that are open in the ledger."""
        with self._engine.connect() as connection:
            return open_uids(connection)

    def open_claims(self) -> set[str]:
        """The claims that are open in the ledger."""
        with self._engine.connect() as connection:
            return open_claims(connection)

    def compare(self, listed: Sequence[PodFacts], open_before: set[str]) -> Differences:
        """Where the ledger differs from a complete list, asked for after ``open_before``."""
        bound = [facts.uid for facts in listed if facts.start_at is not None]
        ended = {
            facts.uid
            for facts in listed
            if facts.finished_at is not None or facts.failed_at is not None
        }
        present = {facts.uid for facts in listed}
        with self._engine.connect() as connection:
            now_open = open_uids(connection)
            missing = set(bound) - known_uids(connection, bound)
        return Differences(
            missing=frozenset(missing),
            ended=frozenset(ended & now_open),
            vanished=frozenset((open_before & now_open) - present),
        )

    def store_audit(
        self,
        listed: Sequence[PodFacts],
        vanished: frozenset[str],
        seen_at: int,
        products: Mapping[str, str],
    ) -> None:
        """Make the ledger agree with a complete list of pods that was asked for at ``seen_at``."""
        with self.lease.write() as connection:
            observed = with_products(listed, products)
            record_pods(connection, observed, heartbeat=0, source="audit")
            # the watch did not tell, so its heartbeat is no proof: the last list is
            record_gone(connection, vanished, heartbeat=0, source="audit")
            record_seen(connection, seen_at)

    def store_claim_audit(self, listed: Sequence[ClaimFacts], open_before: set[str]) -> None:
        """Make the ledger agree with a complete list of claims."""
        with self.lease.write() as connection:
            record_claims(connection, listed, heartbeat=0)
            gone = open_before - {facts.uid for facts in listed}
            record_gone_claims(connection, gone, heartbeat=heartbeats(connection).get("claims", 0))


def with_products(facts: Any, products: Mapping[str, str]) -> list[PodFacts]:
    """Pod facts with the GPU product of their node, where it is known."""
    return [
        replace(f, product=products.get(f.node, "")) if f.gpus and not f.product else f
        for f in facts
    ]


def heartbeats(connection: Connection) -> dict[str, int]:
    """Per stream, until when everything is known."""
    rows = connection.execute(select(POSITION.c.stream, POSITION.c.heartbeat_at))
    return {stream: at for stream, at in rows}


def _move_on(connection: Connection, stream: str, batch: Batch[Any], heartbeat: int | None) -> None:
    values: dict[str, Any] = {}
    if batch.position is not None:
        values["resource_version"] = batch.position
    if batch.synced_at is not None:
        values["heartbeat_at"] = max(batch.synced_at, heartbeat or 0)
    if heartbeat is None:
        first = {"resource_version": None, "heartbeat_at": 0, **values}
        connection.execute(insert(POSITION).values(stream=stream, **first))
    elif values:
        connection.execute(update(POSITION).where(POSITION.c.stream == stream).values(**values))
