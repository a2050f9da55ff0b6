"""Databases as the ledger meets them: with the hub's own tables in them, SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterhub import orm
from sqlalchemy import Engine, text

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.tables import Base

from .postgres import PostgresServer, find_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    server = PostgresServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: each test that uses it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


def make_hub_tables(url: str) -> None:
    """What the hub does with an empty database at its first start."""
    sessions = orm.new_session_factory(url)
    sessions.kw["bind"].dispose()


@pytest.fixture
def url(empty_url: str) -> str:
    """A database with the hub's tables, without ours."""
    make_hub_tables(empty_url)
    return empty_url


def _make_ledger(url: str) -> None:
    make_hub_tables(url)
    engine = db.make_engine(url)
    db.upgrade(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def sqlite_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "jupyterhub.sqlite"
    _make_ledger(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_ledger(postgres: PostgresServer) -> str:
    url = postgres.new_database()
    _make_ledger(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database with the hub's tables and the ledger's, which are empty.

    A copy of a file, or the same database emptied: making the tables takes a second.
    """
    if request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("sqlite_ledger"), tmp_path)
        engine = db.make_engine(f"sqlite:///{file}")
    else:
        engine = db.make_engine(request.getfixturevalue("postgres_ledger"))
        names = ", ".join(Base.metadata.tables)
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    yield engine
    engine.dispose()
