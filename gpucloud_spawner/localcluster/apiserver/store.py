"""Objects in memory with Kubernetes' resourceVersions, a bounded history and watchers.

Objects are kept encoded: readers concatenate bytes, and nobody can change a stored object through a
shared dict. The store knows no kind: rules, defaults and HTTP belong to the modules above it.
"""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from .errors import already_exists, conflict, not_found, too_old
from .persistence import Database
from .resources import RESOURCES, Path, Resource

Object = dict[str, Any]
Key = tuple[str, str]
Labels = dict[str, str]

# Events per resource that a watch can still be given after the fact, and the memory they may take.
HISTORY = 2048
HISTORY_BYTES = 32 * 1024 * 1024


class Record:
    """One version of one object; immutable."""

    __slots__ = ("body", "fields", "key", "labels", "version", "written")

    def __init__(
        self, resource: Resource, key: Key, version: int, obj: Object, body: bytes
    ) -> None:
        self.key = key
        self.version = version
        self.body = body
        self.written = time.monotonic()
        self.labels: Labels = obj["metadata"].get("labels") or {}
        self.fields = tuple(_text_at(obj, path) for path in resource.field_paths)

    def load(self) -> Object:
        """A copy that the caller may change."""
        return orjson.loads(self.body)


def _text_at(obj: Object, path: Path) -> str:
    value: Any = obj
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@dataclass(frozen=True, slots=True)
class Event:
    """A change: `record` is the new version (of a deletion: the last state, at the version of the
    deletion), `previous` the version before it."""

    type: str
    record: Record
    previous: Record | None


Listener = Callable[[Event], None]


class Table:
    """All objects of one resource, ordered by namespace and name."""

    def __init__(self, floor: int) -> None:
        self.records: dict[Key, Record] = {}
        self.order: list[Key] = []
        self.history: deque[Event] = deque()
        self.floor = floor  # versions up to here have left the history
        self.listeners: set[Listener] = set()
        self._history_bytes = 0

    def insert(self, record: Record) -> None:
        if record.key not in self.records:
            bisect.insort(self.order, record.key)
        self.records[record.key] = record

    def drop(self, key: Key) -> None:
        del self.records[key]
        del self.order[bisect.bisect_left(self.order, key)]

    def publish(self, event: Event) -> None:
        self.history.append(event)
        self._history_bytes += len(event.record.body)
        while len(self.history) > HISTORY or self._history_bytes > HISTORY_BYTES:
            forgotten = self.history.popleft().record
            self._history_bytes -= len(forgotten.body)
            self.floor = forgotten.version
        for listener in tuple(self.listeners):
            listener(event)


class Store:
    def __init__(self, database: Database) -> None:
        self._database = database
        # At least 1: to a client, version 0 means "any".
        self.version = max(database.reserved_version(), 1)
        self._reserved = database.reserve_versions(self.version)
        self._tables = {id(r): Table(self.version) for r in RESOURCES}
        self._load()

    def _load(self) -> None:
        resources = {r.qualified: r for r in RESOURCES}
        for name, namespace, key, version, body in self._database.rows():
            resource = resources.get(name)
            if resource is not None:  # else: written by a version that served more kinds
                record = Record(resource, (namespace, key), version, orjson.loads(body), body)
                self.table(resource).insert(record)

    def table(self, resource: Resource) -> Table:
        return self._tables[id(resource)]

    def find(self, resource: Resource, namespace: str, name: str) -> Record | None:
        return self.table(resource).records.get((namespace, name))

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        record = self.find(resource, namespace, name)
        if record is None:
            raise not_found(resource, name)
        return record

    def keys(self, resource: Resource, namespace: str = "", after: Key | None = None) -> list[Key]:
        """The keys of a namespace ("" = all) in order, after a given one."""
        order = self.table(resource).order
        start = bisect.bisect_right(order, after) if after else 0
        end = len(order)
        if namespace:
            start = max(start, bisect.bisect_left(order, (namespace, "")))
            end = bisect.bisect_left(order, (namespace + "\0", ""))
        return order[start:end]

    def records(self, resource: Resource, namespace: str = "") -> Iterator[Record]:
        records = self.table(resource).records
        for key in self.keys(resource, namespace):
            yield records[key]

    def create(self, resource: Resource, obj: Object) -> Record:
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        if key in self.table(resource).records:
            raise already_exists(resource, meta["name"])
        return self._write(resource, key, obj, None)

    def replace(self, resource: Resource, old: Record, obj: Object) -> Record:
        """The new version, or the old one where nothing changed."""
        obj["metadata"]["resourceVersion"] = str(old.version)
        if orjson.dumps(obj) == old.body or obj == old.load():
            return old
        return self._write(resource, old.key, obj, old)

    def remove(self, resource: Resource, old: Record, obj: Object) -> Record:
        """Forget the object; `obj` is the last state that watchers are shown."""
        self._check_current(resource, old)
        record = self._encode(resource, old.key, obj)
        self._database.delete(resource.qualified, *old.key)
        table = self.table(resource)
        table.drop(old.key)
        table.publish(Event("DELETED", record, old))
        return record

    def expire(self, resource: Resource, seconds: float, limit: int) -> int:
        """Forget up to `limit` objects that nobody has written for so long; returns how many."""
        before = time.monotonic() - seconds
        table = self.table(resource)
        old = [record for record in table.records.values() if record.written < before][:limit]
        for record in old:
            self.remove(resource, record, record.load())
        return len(old)

    def _write(self, resource: Resource, key: Key, obj: Object, old: Record | None) -> Record:
        if old is not None:
            self._check_current(resource, old)
        record = self._encode(resource, key, obj)
        self._database.put(resource.qualified, *key, record.version, record.body)
        table = self.table(resource)
        table.insert(record)
        table.publish(Event("MODIFIED" if old else "ADDED", record, old))
        return record

    def _check_current(self, resource: Resource, old: Record) -> None:
        if self.table(resource).records.get(old.key) is not old:
            raise conflict(resource, old.key[1])

    def _encode(self, resource: Resource, key: Key, obj: Object) -> Record:
        self.version += 1
        if self.version >= self._reserved:
            self._reserved = self._database.reserve_versions(self.version)
        obj["metadata"]["resourceVersion"] = str(self.version)
        return Record(resource, key, self.version, obj, orjson.dumps(obj))

    def since(self, resource: Resource, version: int) -> list[Event]:
        """What happened after a version; raises 410 when that has left the history."""
        table = self.table(resource)
        if version < table.floor:
            raise too_old(version, table.floor)
        events = []
        for event in reversed(table.history):
            if event.record.version <= version:
                break
            events.append(event)
        events.reverse()
        return events
