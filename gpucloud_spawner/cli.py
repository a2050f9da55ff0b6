"""The `gpucloud` command: what admins and developers type. Each sub-command lives in its module."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from ._version import __version__


def build_parser(*, only_run: bool = False) -> argparse.ArgumentParser:
    """The command line, sub-command by sub-command.

    ``only_run``: without the others; their modules take seconds and 80 MB that `run` does not need.
    """
    parser = argparse.ArgumentParser(prog="gpucloud", description="A GPU cloud on JupyterHub")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="run a whole gpucloud on this machine, in the foreground",
        description="Starts the embedded local cluster (unless GPUCLOUD_CLUSTER=kubeconfig) and "
        "JupyterHub, keeps both running, and ends them and all user servers on Ctrl-C.",
    )
    run.add_argument(
        "--config",
        type=Path,
        default=Path("hub_config/jupyterhub_config.py"),
        help="JupyterHub configuration (default: %(default)s)",
    )
    if only_run:
        return parser
    from .metering import cli as metering

    metering.add_commands(commands)
    from .storage import cli as storage

    storage.add_commands(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `gpucloud`; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(only_run=words[:1] == ["run"]).parse_args(words)
    if arguments.command == "run":
        from .run import run
        from .supervisor import RunError

        try:
            asyncio.run(run(arguments.config))
        except RunError as error:
            print(f"gpucloud: {error}", file=sys.stderr)
            return 1
        return 0
    return int(arguments.handler(arguments))


if __name__ == "__main__":
    sys.exit(main())
