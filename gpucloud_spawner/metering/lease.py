"""Who may write the ledger: a lease in the database, and a fence in every transaction.

The lease row is renewed inside each writing transaction. A process that lost it (it slept, it was
cut off, somebody started a second service) finds that out before it commits anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from .db import writing
from .tables import LEASE

NAME = "ledger"


class LeaseLost(Exception):
    """Another process writes the ledger now; nothing was written by this one."""


def database_time(connection: Connection) -> int:
    """The database's clock, which all candidates share."""
    if connection.dialect.name == "postgresql":
        now = connection.scalar(text("SELECT floor(extract(epoch FROM clock_timestamp()))"))
        assert now is not None
        return int(now)
    return int(time.time())  # SQLite is on this machine


class Lease:
    """One candidate's view of the lease. Used from one thread at a time."""

    def __init__(self, engine: Engine, holder: str, seconds: int) -> None:
        self._engine = writing(engine)
        self.holder = holder
        self.seconds = seconds
        self.token: int | None = None

    def acquire(self) -> bool:
        """Take the lease if it is free, has expired, or is ours; False where another holds it."""
        try:
            with self._engine.begin() as connection:
                self.token = self._take(connection)
        except IntegrityError:  # two inserted the first row at the same time: the other has it
            self.token = None
        return self.token is not None

    def _take(self, connection: Connection) -> int | None:
        now = database_time(connection)
        query = select(LEASE).where(LEASE.c.name == NAME).with_for_update()
        row = connection.execute(query).mappings().first()
        values = {"holder": self.holder, "expires_at": now + self.seconds}
        if row is None:
            connection.execute(insert(LEASE).values(name=NAME, token=1, **values))
            return 1
        if row["holder"] != self.holder and row["expires_at"] > now:
            return None
        token = int(row["token"]) + 1
        connection.execute(update(LEASE).where(LEASE.c.name == NAME).values(token=token, **values))
        return token

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits only if the lease is still ours; it renews it, too.

        Raises LeaseLost, and what the database raises.
        """
        with self._engine.begin() as connection:
            self._renew(connection, database_time(connection) + self.seconds)
            yield connection

    def _renew(self, connection: Connection, expires_at: int) -> None:
        mine = (
            (LEASE.c.name == NAME) & (LEASE.c.holder == self.holder) & (LEASE.c.token == self.token)
        )
        # locks the row until the commit: nobody can take the lease in between
        renewed = connection.execute(update(LEASE).where(mine).values(expires_at=expires_at))
        if self.token is None or renewed.rowcount != 1:
            self.token = None
            raise LeaseLost("another process holds the ledger's lease")

    def release(self) -> None:
        """Give the lease back, so that a successor need not wait for it to expire."""
        if self.token is None:
            return
        try:
            with self.write() as connection:
                self._renew(connection, 0)
        except LeaseLost:
            pass
        self.token = None
