"""The ledger's own engine on the hub's database, and its schema.

Never touches a table of the hub's. Our tables come after the hub's: a hub that finds foreign tables
and none of its own takes the database for one of JupyterHub 0.6 and refuses to start.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, OperationalError

from .tables import PREFIX, VERSION_TABLE

MIGRATIONS = Path(__file__).parent / "migrations"
# What the hub makes at its first start, in every version since 0.8.
HUB_TABLES = frozenset({"users", "spawners", "alembic_version"})
BUSY_SECONDS = 30
# For pg_advisory_xact_lock: any numbers that nobody else in this database uses.
UPGRADE, NEW_JOB = 0x67707563, 0x67707564


class SchemaError(Exception):
    """The database is not as this version needs it; the text says what to do."""


def make_engine(url: str, **options: Any) -> Engine:
    """An engine for the hub's ``db_url``; ``options`` go to SQLAlchemy's create_engine.

    Raises SchemaError where the URL is none, or its driver is not installed.
    """
    try:
        return _engine(url, options)
    except (ArgumentError, ImportError) as error:  # neither quotes the URL, which holds a password
        raise SchemaError(f"The database's URL (db_url) cannot be used: {error}") from error


def _engine(url: str, options: dict[str, Any]) -> Engine:
    if url.startswith("sqlite"):
        return _sqlite(url, options)
    options.setdefault("pool_pre_ping", True)  # a restarted database costs one reconnect
    options.setdefault("pool_size", 4)
    return create_engine(url, **options)


def _sqlite(url: str, options: dict[str, Any]) -> Engine:
    # isolation_level None: sqlite3 must not begin transactions by itself, see _begin
    options.setdefault("connect_args", {"timeout": BUSY_SECONDS, "isolation_level": None})
    engine = create_engine(url, **options)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        # readers do not wait for the writer, nor the hub for us
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a line that was committed survives a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        # a statement over a year reads more than the 2 MB that SQLite keeps by itself
        cursor.execute("PRAGMA cache_size=-65536")
        cursor.execute("PRAGMA mmap_size=1073741824")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # a writer takes its lock at once; upgrading a reader's fails if another wrote meanwhile
        writes = connection.get_execution_options().get("gpucloud_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def writing(engine: Engine) -> Engine:
    """``engine`` for transactions that write."""
    return engine.execution_options(gpucloud_write=True)


def one_at_a_time(connection: Connection, what: int) -> None:
    """Until the end of this transaction, which is one of `writing`, nobody else does the same: what
    it reads is still so when it writes. On SQLite there is one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": what})


def reading(engine: Engine) -> Engine:
    """``engine`` for reading several things of one moment."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ")
    return engine


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def head() -> str:
    """The schema revision that this version of the program writes."""
    return str(_scripts().get_current_head())


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def current(engine: Engine) -> str | None:
    """The schema revision of the database; None where it has none of our tables."""
    with engine.connect() as connection:
        return _revision(connection)


def hub_is_ready(engine: Engine) -> bool:
    """Whether the hub has made its own tables."""
    return HUB_TABLES.issubset(inspect(engine).get_table_names())


def wait_for_hub(engine: Engine, timeout: float) -> None:
    """Return once the hub's own tables exist. Blocks; raises SchemaError after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not _hub_is_ready_by_now(engine):
        if time.monotonic() >= deadline:
            raise SchemaError(
                "The hub has not made its tables in this database yet. Start JupyterHub once, with "
                "the same db_url, before the ledger."
            )
        time.sleep(0.1)


def _hub_is_ready_by_now(engine: Engine) -> bool:
    try:
        return hub_is_ready(engine)
    except OperationalError:  # the database itself is still starting
        return False


def check(engine: Engine) -> None:
    """Raise SchemaError unless the schema is exactly the one of this version."""
    revision = current(engine)
    if revision == head():
        return
    _refuse_newer(revision)
    found = revision or "missing"
    raise SchemaError(
        f"The ledger's schema is {found}, this version needs {head()}: run `gpucloud db upgrade`."
    )


def _refuse_newer(revision: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaError(
            f"The ledger's schema {revision} is newer than this version of gpucloud knows (up to "
            f"{head()}). Install the newer version again; nothing was changed."
        )


def upgrade(engine: Engine, revision: str = "head") -> str:
    """Bring our tables to ``revision`` and return it; safe to call from several processes.

    Raises SchemaError on a newer schema, and where the hub has not made its own tables.
    """
    if not hub_is_ready(engine):
        raise SchemaError(
            "This database has no tables of JupyterHub yet. Start the hub once, then upgrade: made "
            f"first, our tables ({PREFIX}*) would make the hub refuse to start."
        )
    with writing(engine).begin() as connection:
        one_at_a_time(connection, UPGRADE)
        _refuse_newer(_revision(connection))
        command.upgrade(_config(connection), revision)
        return str(_revision(connection))
