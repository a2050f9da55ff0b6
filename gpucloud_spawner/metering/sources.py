"""What arrives from the watches, gathered until the writer takes it.

Facts of one object are merged while they wait, so that a slow database costs no memory and nothing
is lost. A batch carries the position up to which the stream is known, and is stored together with
it in one transaction: after a crash the stream goes on exactly where the ledger stands.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ..kube.watch import Follower, ListMethod
from ..model.usage import PodFacts, merge
from .observe import ClaimFacts, GPUResources, NodeFacts, read_claim, read_node, read_pod

log = logging.getLogger(__name__)
T = TypeVar("T")
Object = Mapping[str, Any]

WATCH_SECONDS = 10


@dataclass
class Batch(Generic[T]):
    """What a stream told since the last batch, by uid."""

    items: dict[str, T] = field(default_factory=dict)
    # everything that a list contained; None: no list since
    listed: set[str] | None = None
    position: str | None = None
    # everything up to here was delivered
    synced_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self.items) or self.listed is not None or self.synced_at is not None


class Stream(ABC, Generic[T]):
    """One followed kind of object. Lives in the event loop."""

    name = ""
    resumes = True

    def __init__(
        self,
        list_method: ListMethod,
        selectors: Mapping[str, Any],
        *,
        wake: Callable[[], None],
        count: Callable[[str, str], None],
        position: str | None = None,
        watch_seconds: int = WATCH_SECONDS,
    ) -> None:
        self._batch: Batch[T] = Batch()
        self._wake = wake
        self._count = count
        self.position = position if self.resumes else None
        self.listed_once = False
        self.follower = Follower(
            list_method,
            selectors,
            what=self.name,
            on_change=_ignore,
            log=log,
            on_event=self._on_event,
            resource_version=self.position,
            watch_seconds=watch_seconds,
        )

    @abstractmethod
    def read(self, item: Object, *, gone: bool) -> T:
        """The facts of one object."""

    @abstractmethod
    def join(self, before: T, after: T) -> T:
        """What two observations of one object say together; ``after`` came later."""

    @abstractmethod
    def as_gone(self, facts: T) -> T:
        """The facts of an object that is known to exist no more."""

    @property
    def waiting(self) -> int:
        return len(self._batch.items)

    def take(self) -> Batch[T]:
        """All that has gathered; the stream begins anew."""
        batch, self._batch = self._batch, Batch()
        return batch

    def restore(self, batch: Batch[T]) -> None:
        """Take back a batch that could not be stored."""
        newer, self._batch = self._batch, batch
        if newer.listed is not None:
            batch.listed = newer.listed
            self._mark_unlisted()  # before what came after the list is added
        for uid, facts in newer.items.items():
            self._add(uid, facts)
        batch.position = newer.position or batch.position
        batch.synced_at = newer.synced_at or batch.synced_at

    def _on_event(self, kind: str, item: Object) -> None:
        self._count(self.name, kind)
        if kind == "SYNCED":
            self._batch.synced_at = self.follower.server_time
        elif kind == "LISTED":
            self._batch.listed = set()
            for one in item["items"]:
                self._take_in(one, gone=False)
                self._batch.listed.add(one["metadata"]["uid"])
            self._mark_unlisted()
            self.listed_once = True
        elif kind != "BOOKMARK":
            self._take_in(item, gone=kind == "DELETED")
        if kind != "SYNCED":
            self.position = self._batch.position = item["metadata"]["resourceVersion"]
        self._wake()

    def _mark_unlisted(self) -> None:
        for uid, facts in self._batch.items.items():
            if uid not in (self._batch.listed or ()):
                self._batch.items[uid] = self.as_gone(facts)

    def _take_in(self, item: Object, *, gone: bool) -> None:
        try:
            facts = self.read(item, gone=gone)
        except (KeyError, ValueError, TypeError, AttributeError):
            # one object that nobody understands must not stop the metering of all others
            self._count(self.name, "unreadable")
            log.exception("Unreadable object in %s: %s", self.name, item.get("metadata"))
            return
        self._add(item["metadata"]["uid"], facts)

    def _add(self, uid: str, facts: T) -> None:
        before = self._batch.items.get(uid)
        self._batch.items[uid] = facts if before is None else self.join(before, facts)


def _ignore() -> None:
    """Streams are told by `on_event`."""


class PodStream(Stream[PodFacts]):
    """All metered pods."""

    name = "pods"

    def __init__(self, *args: Any, gpus: GPUResources, **kwargs: Any) -> None:
        self._gpus = gpus
        super().__init__(*args, **kwargs)

    def read(self, item: Object, *, gone: bool) -> PodFacts:
        return read_pod(item, self._gpus, gone=gone)

    def join(self, before: PodFacts, after: PodFacts) -> PodFacts:
        return merge(before, after)

    def as_gone(self, facts: PodFacts) -> PodFacts:
        return replace(facts, gone=True)


class ClaimStream(Stream[tuple[ClaimFacts, ...]]):
    """All home volumes' claims; observations are kept apart, as each may tell a size."""

    name = "claims"

    def read(self, item: Object, *, gone: bool) -> tuple[ClaimFacts, ...]:
        return (read_claim(item, self.follower.server_time, gone=gone),)

    def join(
        self, before: tuple[ClaimFacts, ...], after: tuple[ClaimFacts, ...]
    ) -> tuple[ClaimFacts, ...]:
        last, new = before[-1], after[-1]
        if len(after) == 1 and replace(new, seen_at=last.seen_at) == last:
            return before  # nothing that matters has changed
        return before + after

    def as_gone(self, facts: tuple[ClaimFacts, ...]) -> tuple[ClaimFacts, ...]:
        return (*facts, replace(facts[-1], gone=True))


@dataclass(frozen=True)
class NodeSeen:
    """A node as it was at a time of the API server's clock."""

    facts: NodeFacts
    at: int
    gone: bool


class NodeStream(Stream[NodeSeen]):
    """All nodes; also remembers their GPU products, which pods do not carry."""

    name = "nodes"
    resumes = False  # a node carries no times of change: see `nodes`

    def __init__(self, *args: Any, gpus: GPUResources, **kwargs: Any) -> None:
        self._gpus = gpus
        self.products: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def read(self, item: Object, *, gone: bool) -> NodeSeen:
        facts = read_node(item, self._gpus)
        self.products[facts.name] = facts.product
        return NodeSeen(facts, self.follower.server_time, gone)

    def join(self, before: NodeSeen, after: NodeSeen) -> NodeSeen:
        return after

    def as_gone(self, facts: NodeSeen) -> NodeSeen:
        return replace(facts, gone=True)
