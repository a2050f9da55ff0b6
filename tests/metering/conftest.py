"""Databases as the ledger meets them: with the hub's own tables in them, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterhub import orm
from sqlalchemy import Engine

from gpucloud_spawner.metering import db

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


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A database with the ledger's tables."""
    engine = db.make_engine(url)
    db.upgrade(engine)
    yield engine
    engine.dispose()
