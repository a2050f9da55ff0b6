"""The schema: after the hub's tables, never before; own version table; both databases."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from jupyterhub import dbutil, orm
from sqlalchemy import Boolean, Column, Engine, Integer, MetaData, inspect, text
from sqlalchemy.pool import NullPool

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import PREFIX, VERSION_TABLE, Base

from .conftest import make_hub_tables


def test_an_upgrade_makes_exactly_the_tables_that_the_program_uses(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {
            "version_table": VERSION_TABLE,
            "include_name": lambda name, kind, _: kind != "table" or name.startswith(PREFIX),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    assert db.current(engine) == db.head()
    db.check(engine)


def test_every_table_carries_the_prefix(engine: Engine) -> None:
    ours = set(inspect(engine).get_table_names()) - set(orm.Base.metadata.tables)
    assert {t for t in ours if not t.startswith(PREFIX)} == {"alembic_version"}


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    assert db.upgrade(engine) == db.upgrade(engine) == db.head()


def test_two_services_may_upgrade_at_the_same_time(url: str) -> None:
    results: list[str | Exception] = []

    def upgrade() -> None:
        engine = db.make_engine(url)
        try:
            results.append(db.upgrade(engine))
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            results.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [db.head()] * 3


def test_our_tables_are_never_made_before_the_hubs(empty_url: str) -> None:
    engine = db.make_engine(empty_url)
    with pytest.raises(db.SchemaError, match="Start the hub once"):
        db.upgrade(engine)
    with pytest.raises(db.SchemaError, match="has not made its tables"):
        db.wait_for_hub(engine, timeout=0)
    assert not [t for t in inspect(engine).get_table_names() if t.startswith(PREFIX)]
    engine.dispose()
    make_hub_tables(empty_url)  # the hub's first start still works ...
    engine = db.make_engine(empty_url)
    orm.check_db_revision(engine)
    db.upgrade(engine)
    orm.check_db_revision(engine)  # ... and so do all later ones, with our tables present
    engine.dispose()


def test_waiting_for_the_hub_ends_once_its_tables_are_there(empty_url: str) -> None:
    engine = db.make_engine(empty_url)
    hub = threading.Thread(target=make_hub_tables, args=(empty_url,))
    hub.start()
    db.wait_for_hub(engine, timeout=30)
    hub.join()
    assert db.hub_is_ready(engine)
    engine.dispose()


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    engine = db.make_engine(url)
    db.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for call in (db.check, db.upgrade):
        with pytest.raises(db.SchemaError, match="newer than this version"):
            call(engine)
    assert db.current(engine) == "9999"
    engine.dispose()


def test_a_missing_schema_is_told_with_the_remedy(url: str) -> None:
    engine = db.make_engine(url)
    with pytest.raises(db.SchemaError, match="gpucloud db upgrade"):
        db.check(engine)
    assert db.current(engine) is None
    engine.dispose()


def a_value(column: Column[Any]) -> Any:
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, Integer):
        return 7
    return f"ü {column.name}"


def test_upgrade_from_the_first_schema_keeps_every_row(url: str) -> None:
    engine = db.make_engine(url)
    db.upgrade(engine, "0001")
    first = MetaData()
    first.reflect(engine, only=lambda name, _: name.startswith(PREFIX) and name != VERSION_TABLE)
    assert len(first.tables) == 9
    rows = {
        table: {column.name: a_value(column) for column in table.columns}
        for table in first.sorted_tables
    }
    with engine.begin() as connection:
        for table, row in rows.items():
            connection.execute(table.insert(), row)
    assert db.upgrade(engine) == db.head()
    with engine.connect() as connection:
        for table, row in rows.items():
            assert [dict(r) for r in connection.execute(table.select()).mappings()] == [row]
    assert usage(engine, Query.parse(group_by="user")).rows == []  # it can be asked at once
    engine.dispose()


def test_the_hubs_upgrade_is_content_with_our_tables(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    dbutil.upgrade_if_needed(url, db_kwargs={"poolclass": NullPool}, log=logging.getLogger("hub"))
    assert db.current(engine) == db.head()


def test_jupyterhub_upgrade_db_runs_with_our_tables_present(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}"
    make_hub_tables(url)
    engine = db.make_engine(url)
    db.upgrade(engine)
    engine.dispose()
    config = tmp_path / "config.py"
    config.write_text(f"c = get_config()\nc.JupyterHub.db_url = {url!r}\n")
    command = [sys.executable, "-m", "jupyterhub", "upgrade-db", "-f", str(config)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert db.current(engine) == db.head()
    engine.dispose()


def test_sqlite_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}"
    make_hub_tables(url)
    engine = db.make_engine(url)
    db.upgrade(engine)
    with db.writing(engine).begin() as writer, engine.connect() as reader:
        writer.execute(text("INSERT INTO gpucloud_position VALUES ('pods', '1', 5)"))
        assert reader.scalar(text("SELECT count(*) FROM gpucloud_position")) == 0
    engine.dispose()
