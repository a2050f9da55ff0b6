"""The SQLite file in which every stored object outlives the process.

One row per object. A statement is committed before the write is acknowledged or seen by a watch,
but not synchronised to the disk: an acknowledged write survives the death of the process, a power
cut may take the last moments. Which objects exist and what they mean is the store's business.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  version INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# Versions are reserved in blocks, so that deletions, which leave no row, cannot be forgotten and a
# restarted server never issues a resourceVersion for the second time.
BLOCK = 1000

Row = tuple[str, str, str, int, bytes]


class Database:
    """Rows of encoded objects and the reserved resourceVersions."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = self._connect()
        self._db.executescript(_SCHEMA)
        # Checkpoints synchronise with the disk, so they are left to `checkpoint()` in a thread.
        self._db.execute("PRAGMA wal_autocheckpoint=0")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        return db

    def rows(self) -> Iterator[Row]:
        yield from self._db.execute("SELECT resource, namespace, name, version, body FROM object")

    def put(self, resource: str, namespace: str, name: str, version: int, body: bytes) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)",
            (resource, namespace, name, version, body),
        )

    def delete(self, resource: str, namespace: str, name: str) -> None:
        self._db.execute(
            "DELETE FROM object WHERE resource=? AND namespace=? AND name=?",
            (resource, namespace, name),
        )

    def setting(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM setting WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def reserve_versions(self, after: int) -> int:
        """Reserve the next block of versions; returns its last one."""
        last = after + BLOCK
        self.set("reserved_version", str(last))
        return last

    def reserved_version(self) -> int:
        return int(self.setting("reserved_version") or 0)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file; safe to call from a thread."""
        db = self._connect()
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            db.close()

    def close(self) -> None:
        self._db.close()
