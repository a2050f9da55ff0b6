"""Alembic's entry: run on the connection that `db.upgrade` hands over, never on one of its own."""

from __future__ import annotations

from alembic import context

from gpucloud_spawner.metering.tables import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
