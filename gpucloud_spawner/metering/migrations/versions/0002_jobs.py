"""Distributed jobs, and the name of the database by which its objects are known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIMES = ("launched_at", "started_at", "incomplete_at", "ended_at", "closed_at")


def upgrade() -> None:
    name = sa.String(length=255)
    op.create_table(
        "gpucloud_jobs",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("job", sa.String(length=63), nullable=False),
        sa.Column("owner", name, nullable=False),
        sa.Column("team", name, nullable=False),
        sa.Column("idempotency_key", name, nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("namespace", name, nullable=False),
        sa.Column("bucket", name, nullable=False),
        sa.Column("secret", name, nullable=False),
        sa.Column("port", sa.BigInteger(), nullable=False),
        sa.Column("ports", sa.BigInteger(), nullable=False),
        sa.Column("state", name, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *(sa.Column(time, sa.BigInteger(), nullable=True) for time in _TIMES),
        sa.Column("replicas", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_jobs")),
        sa.UniqueConstraint("job", name=op.f("uq_gpucloud_jobs_job")),
        sa.UniqueConstraint("owner", "idempotency_key", name=op.f("uq_gpucloud_jobs_owner")),
    )
    for index, column in (
        ("owner", "owner"),
        ("team", "team"),
        ("state", "state"),
        ("closed", "closed_at"),
    ):
        op.create_index(f"gpucloud_jobs_{index}", "gpucloud_jobs", [column, "id"], unique=False)
    op.create_index("gpucloud_interval_job", "gpucloud_interval", ["job"], unique=False)
    op.create_table(
        "gpucloud_identity",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_identity")),
    )
