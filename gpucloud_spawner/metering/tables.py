"""The ledger's tables, beside the hub's own in the same database.

Own MetaData and the prefix ``gpucloud_``: the hub must never take them for its own. Times are whole
seconds since 1970 (UTC), prices whole billionths of the currency: both are exact in every database.
A change here needs a new migration in ``migrations/versions``.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import (
    BigInteger,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PREFIX = "gpucloud_"
VERSION_TABLE = PREFIX + "alembic_version"

# SQLite numbers rows by itself only in a column declared INTEGER (which holds 64 bits there).
Id = BigInteger().with_variant(Integer, "sqlite")
Name = String(255)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger(), str: Name}


class Interval(Base):
    """One pod (one uid), from its binding to a node until its containers have ended.

    ``start_at`` and ``end_at`` follow from the facts below them (`model.usage.end_of`).
    """

    __tablename__ = PREFIX + "interval"
    __table_args__ = (
        Index(PREFIX + "interval_end", "end_at", "start_at"),
        Index(PREFIX + "interval_start", "start_at", "id"),
        Index(PREFIX + "interval_owner", "owner", "start_at"),
        Index(PREFIX + "interval_team", "team", "start_at"),
        Index(PREFIX + "interval_node", "node", "end_at"),
        Index(PREFIX + "interval_job", "job"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    namespace: Mapped[str]
    pod: Mapped[str]
    node: Mapped[str]
    component: Mapped[str]
    owner: Mapped[str]
    team: Mapped[str]
    app: Mapped[str]
    job: Mapped[str]
    profile: Mapped[str]
    product: Mapped[str]
    resource: Mapped[str]
    gpus: Mapped[int]
    price_nano: Mapped[int | None]
    start_at: Mapped[int]
    start_source: Mapped[str]
    end_at: Mapped[int | None]
    end_source: Mapped[str]
    # the facts
    finished_at: Mapped[int | None]
    ended_alone: Mapped[bool]
    failed_at: Mapped[int | None]
    deleted_at: Mapped[int | None]
    gone: Mapped[bool]
    last_seen: Mapped[int | None]
    recorded_by: Mapped[str]  # which source told first: watch, audit or stop-record


class Volume(Base):
    """One size of one claim: from when it had it until it grew or was deleted."""

    __tablename__ = PREFIX + "volume"
    __table_args__ = (
        UniqueConstraint("uid", "gib"),
        Index(PREFIX + "volume_end", "end_at", "start_at"),
        Index(PREFIX + "volume_owner", "owner", "start_at"),
        Index(PREFIX + "volume_team", "team", "start_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    uid: Mapped[str] = mapped_column(String(64))
    gib: Mapped[int]
    namespace: Mapped[str]
    claim: Mapped[str]
    owner: Mapped[str]
    team: Mapped[str]
    app: Mapped[str]
    profile: Mapped[str]
    start_at: Mapped[int]
    end_at: Mapped[int | None]
    end_source: Mapped[str]
    # the facts
    created_at: Mapped[int]
    first_seen: Mapped[int]  # when the claim was first seen with this size
    deleted_at: Mapped[int | None]
    gone: Mapped[bool]
    last_seen: Mapped[int | None]


class Capacity(Base):
    """GPUs of one resource on one node, from a change until the next."""

    __tablename__ = PREFIX + "capacity"
    __table_args__ = (
        UniqueConstraint("node_uid", "resource", "start_at"),
        Index(PREFIX + "capacity_end", "end_at", "start_at"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    node_uid: Mapped[str] = mapped_column(String(64))
    node: Mapped[str]
    resource: Mapped[str]
    product: Mapped[str]
    gpus: Mapped[int]
    start_at: Mapped[int]
    end_at: Mapped[int | None]
    end_source: Mapped[str]  # changed, deletion or heartbeat


class NodeLoss(Base):
    """A time in which the cluster did not hear from a node."""

    __tablename__ = PREFIX + "node_loss"
    __table_args__ = (UniqueConstraint("node", "lost_at"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    node: Mapped[str]
    lost_at: Mapped[int]
    back_at: Mapped[int | None]


class PriceLine(Base):
    """One line of the price list; append-only."""

    __tablename__ = PREFIX + "price"

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    kind: Mapped[str]
    source: Mapped[str]
    profile: Mapped[str]
    product: Mapped[str]
    nano: Mapped[int | None]
    valid_from: Mapped[int]
    entered_at: Mapped[int]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)


class Adjustment(Base):
    """A correction by a person; append-only."""

    __tablename__ = PREFIX + "adjustment"
    __table_args__ = (
        Index(PREFIX + "adjustment_effective", "effective_at"),
        Index(PREFIX + "adjustment_interval", "interval_uid"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    interval_uid: Mapped[str] = mapped_column(String(64))  # "" where it is about none
    owner: Mapped[str]
    team: Mapped[str]
    app: Mapped[str]
    job: Mapped[str]
    profile: Mapped[str]
    product: Mapped[str]
    component: Mapped[str]
    gpu_seconds: Mapped[int]
    money_nano: Mapped[int]
    effective_at: Mapped[int]
    entered_at: Mapped[int]
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)


class StopRecord(Base):
    """What the hub saw of a pod that it stopped: an inbox that the hub only appends to."""

    __tablename__ = PREFIX + "stop_record"
    __table_args__ = (Index(PREFIX + "stop_record_done", "done_at", "id"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    uid: Mapped[str] = mapped_column(String(64))
    written_at: Mapped[int]
    gone: Mapped[bool]
    pod: Mapped[str] = mapped_column(Text)  # JSON of what `observe.trim` keeps
    done_at: Mapped[int | None]


class Position(Base):
    """Per stream: how far it was followed, and until when everything is known (the heartbeat)."""

    __tablename__ = PREFIX + "position"

    stream: Mapped[str] = mapped_column(Name, primary_key=True)
    resource_version: Mapped[str | None]
    heartbeat_at: Mapped[int]


class Lease(Base):
    """Who may write. ``token`` grows with every change of hands and fences off the one before."""

    __tablename__ = PREFIX + "lease"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str]
    token: Mapped[int]
    expires_at: Mapped[int]


class Job(Base):
    """A distributed job: what was asked for, and how it stands (`model.job_record`)."""

    __tablename__ = PREFIX + "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index(PREFIX + "jobs_owner", "owner", "id"),
        Index(PREFIX + "jobs_team", "team", "id"),
        Index(PREFIX + "jobs_state", "state", "id"),
        Index(PREFIX + "jobs_closed", "closed_at", "id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True)
    job: Mapped[str] = mapped_column(String(63), unique=True)
    owner: Mapped[str]
    team: Mapped[str]
    idempotency_key: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(String(64))  # of the request with that key
    spec: Mapped[str] = mapped_column(Text)  # JSON of `model.jobs.JobSpec`
    namespace: Mapped[str]
    bucket: Mapped[str]
    secret: Mapped[str]
    port: Mapped[int]
    ports: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    stop_requested: Mapped[bool]
    created_at: Mapped[int]
    launched_at: Mapped[int | None]
    started_at: Mapped[int | None]
    incomplete_at: Mapped[int | None]
    ended_at: Mapped[int | None]
    closed_at: Mapped[int | None]
    replicas: Mapped[str] = mapped_column(Text)  # JSON
    failure: Mapped[str] = mapped_column(Text)  # JSON, "" where there is none
    version: Mapped[int]  # grows with every change


class Identity(Base):
    """The name of this database among all whose objects may be in a namespace: one row."""

    __tablename__ = PREFIX + "identity"

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(32))


def table_of(cls: type[Base]) -> Table:
    """The table of a class, for statements that work on many rows at once."""
    return cast(Table, cls.__table__)


INTERVAL = table_of(Interval)
VOLUME = table_of(Volume)
CAPACITY = table_of(Capacity)
NODE_LOSS = table_of(NodeLoss)
PRICE = table_of(PriceLine)
ADJUSTMENT = table_of(Adjustment)
STOP_RECORD = table_of(StopRecord)
POSITION = table_of(Position)
LEASE = table_of(Lease)
JOB = table_of(Job)
IDENTITY = table_of(Identity)
