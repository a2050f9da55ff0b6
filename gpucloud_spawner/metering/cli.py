"""`gpucloud db upgrade|current` and `gpucloud usage`: for admins on the hub's machine.

Every `gpucloud` command loads this module: SQLAlchemy is imported where it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LedgerError
from .query import DEFAULT_CURRENCY, FILTERS, GROUPS, Query

if TYPE_CHECKING:
    from sqlalchemy import Engine


def add_commands(commands: Any) -> None:
    """Add the sub-commands to argparse's sub-parsers; they set ``handler``."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--db",
        metavar="URL",
        default=os.environ.get("GPUCLOUD_DB_URL"),
        help="the hub's db_url (default: GPUCLOUD_DB_URL, else that of `gpucloud run`)",
    )
    database = commands.add_parser("db", help="the ledger's schema in the hub's database")
    actions = database.add_subparsers(dest="action", required=True)
    for name, text in (
        ("upgrade", "bring the ledger's tables to this version"),
        ("current", "print the schema's revision"),
    ):
        action = actions.add_parser(name, parents=[where], help=text, description=text)
        action.set_defaults(handler=run_db)
    report = commands.add_parser(
        "usage",
        parents=[where],
        help="GPU-hours and cost, by team, user ...",
        description="Prints what was used. Times are UTC. Without times: the present month.",
    )
    report.add_argument("--by", default="team", help=f"comma-separated: {', '.join(GROUPS)}")
    report.add_argument("--month", help="for example 2026-11")
    report.add_argument("--start", help="RFC 3339, for example 2026-11-01T00:00:00Z")
    report.add_argument("--end", help="RFC 3339, exclusive")
    for name in FILTERS:
        report.add_argument(f"--{name}", action="append", help=f"only this {name} (repeatable)")
    report.add_argument("--format", choices=("table", "csv"), default="table")
    report.add_argument("--currency", default=DEFAULT_CURRENCY)
    report.set_defaults(handler=run_usage)


def run_db(arguments: argparse.Namespace) -> int:
    """`gpucloud db ...`; returns the exit code."""
    from . import db

    try:
        with _engine(arguments.db) as engine:
            if arguments.action == "upgrade":
                print(f"The ledger's schema is at {db.upgrade(engine)}.")
            else:
                print(db.current(engine) or "none")
    except (db.SchemaError, LedgerError) as error:
        print(f"gpucloud: {error}", file=sys.stderr)
        return 1
    return 0


def run_usage(arguments: argparse.Namespace) -> int:
    """`gpucloud usage ...`; returns the exit code."""
    from . import db
    from .sheets import statement_csv, statement_table
    from .statements import usage

    filters = {name: values for name in FILTERS if (values := getattr(arguments, name))}
    try:
        query = Query.parse(
            group_by=arguments.by,
            start=arguments.start,
            end=arguments.end,
            month=arguments.month,
            filters=filters,
        )
        with _engine(arguments.db) as engine:
            db.check(engine)
            statement = usage(engine, query, currency=arguments.currency)
    except (db.SchemaError, LedgerError) as error:
        print(f"gpucloud: {error}", file=sys.stderr)
        return 1
    text = statement_csv(statement) if arguments.format == "csv" else statement_table(statement)
    sys.stdout.write(text)
    return 0


@contextmanager
def _engine(url: str | None) -> Iterator[Engine]:
    from .db import make_engine

    if url is None:
        file = Path(os.environ.get("GPUCLOUD_DATA") or ".gpucloud") / "jupyterhub.sqlite"
        if not file.exists():
            raise LedgerError(
                "no_database", "Name the hub's database: --db URL, or GPUCLOUD_DB_URL."
            )
        url = f"sqlite:///{file}"
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()
