"""The first schema of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "gpucloud_adjustment",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("interval_uid", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("team", sa.String(length=255), nullable=False),
        sa.Column("app", sa.String(length=255), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=255), nullable=False),
        sa.Column("product", sa.String(length=255), nullable=False),
        sa.Column("component", sa.String(length=255), nullable=False),
        sa.Column("gpu_seconds", sa.BigInteger(), nullable=False),
        sa.Column("money_nano", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.Column("entered_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_adjustment")),
    )
    op.create_index(
        "gpucloud_adjustment_effective", "gpucloud_adjustment", ["effective_at"], unique=False
    )
    op.create_index(
        "gpucloud_adjustment_interval", "gpucloud_adjustment", ["interval_uid"], unique=False
    )
    op.create_table(
        "gpucloud_capacity",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("node_uid", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("product", sa.String(length=255), nullable=False),
        sa.Column("gpus", sa.BigInteger(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("end_source", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_capacity")),
        sa.UniqueConstraint(
            "node_uid", "resource", "start_at", name=op.f("uq_gpucloud_capacity_node_uid")
        ),
    )
    op.create_index(
        "gpucloud_capacity_end", "gpucloud_capacity", ["end_at", "start_at"], unique=False
    )
    op.create_table(
        "gpucloud_interval",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("pod", sa.String(length=255), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("component", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("team", sa.String(length=255), nullable=False),
        sa.Column("app", sa.String(length=255), nullable=False),
        sa.Column("job", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=255), nullable=False),
        sa.Column("product", sa.String(length=255), nullable=False),
        sa.Column("resource", sa.String(length=255), nullable=False),
        sa.Column("gpus", sa.BigInteger(), nullable=False),
        sa.Column("price_nano", sa.BigInteger(), nullable=True),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("start_source", sa.String(length=255), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("end_source", sa.String(length=255), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_alone", sa.Boolean(), nullable=False),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=True),
        sa.Column("recorded_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_interval")),
        sa.UniqueConstraint("uid", name=op.f("uq_gpucloud_interval_uid")),
    )
    op.create_index(
        "gpucloud_interval_end", "gpucloud_interval", ["end_at", "start_at"], unique=False
    )
    op.create_index("gpucloud_interval_node", "gpucloud_interval", ["node", "end_at"], unique=False)
    op.create_index(
        "gpucloud_interval_owner", "gpucloud_interval", ["owner", "start_at"], unique=False
    )
    op.create_index(
        "gpucloud_interval_start", "gpucloud_interval", ["start_at", "id"], unique=False
    )
    op.create_index(
        "gpucloud_interval_team", "gpucloud_interval", ["team", "start_at"], unique=False
    )
    op.create_table(
        "gpucloud_lease",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_gpucloud_lease")),
    )
    op.create_table(
        "gpucloud_node_loss",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("lost_at", sa.BigInteger(), nullable=False),
        sa.Column("back_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_node_loss")),
        sa.UniqueConstraint("node", "lost_at", name=op.f("uq_gpucloud_node_loss_node")),
    )
    op.create_table(
        "gpucloud_position",
        sa.Column("stream", sa.String(length=255), nullable=False),
        sa.Column("resource_version", sa.String(length=255), nullable=True),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", name=op.f("pk_gpucloud_position")),
    )
    op.create_table(
        "gpucloud_price",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=255), nullable=False),
        sa.Column("product", sa.String(length=255), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=True),
        sa.Column("valid_from", sa.BigInteger(), nullable=False),
        sa.Column("entered_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_price")),
    )
    op.create_table(
        "gpucloud_stop_record",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("pod", sa.Text(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_stop_record")),
    )
    op.create_index(
        "gpucloud_stop_record_done", "gpucloud_stop_record", ["done_at", "id"], unique=False
    )
    op.create_table(
        "gpucloud_volume",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("gib", sa.BigInteger(), nullable=False),
        sa.Column("namespace", sa.String(length=255), nullable=False),
        sa.Column("claim", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("team", sa.String(length=255), nullable=False),
        sa.Column("app", sa.String(length=255), nullable=False),
        sa.Column("profile", sa.String(length=255), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("end_source", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gpucloud_volume")),
        sa.UniqueConstraint("uid", "gib", name=op.f("uq_gpucloud_volume_uid")),
    )
    op.create_index("gpucloud_volume_end", "gpucloud_volume", ["end_at", "start_at"], unique=False)
    op.create_index("gpucloud_volume_owner", "gpucloud_volume", ["owner", "start_at"], unique=False)
    op.create_index("gpucloud_volume_team", "gpucloud_volume", ["team", "start_at"], unique=False)
