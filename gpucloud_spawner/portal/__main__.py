"""`python -m gpucloud_spawner.portal`: the service as a process, started by the hub or on its own.

Started by the hub it needs no option. On its own it needs the hub's configuration file and, in the
environment, JUPYTERHUB_API_URL, JUPYTERHUB_API_TOKEN and JUPYTERHUB_SERVICE_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from ..kube.watch import cancel_and_wait
from ..metering.db import SchemaError
from .app import Portal
from .settings import HubAccess, SettingsError, load_settings, read_config

log = logging.getLogger("gpucloud_spawner.portal")
# Set by `configure`: the hub that starts us; not set where we run on our own.
HUB_PID = "GPUCLOUD_HUB_PID"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gpucloud_spawner.portal", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("jupyterhub_config.py"),
        help="the hub's configuration file (default: %(default)s)",
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.INFO,
        format="[%(levelname).1s %(asctime)s gpucloud %(name)s] %(message)s",
    )
    # requests, looks at tokens and refusals are no news; mistakes of ours are
    logging.getLogger("tornado").setLevel(logging.ERROR)
    join_hub()
    try:
        settings = load_settings(read_config(arguments.config.absolute()))
        hub = HubAccess.from_environment(os.environ)
        asyncio.run(serve(Portal(settings, hub)))
    except (SettingsError, SchemaError) as error:
        log.critical("%s", error)
        return 1
    return 0


def join_hub() -> None:
    """Where the hub started us: take on its environment, and end when it ends.

    JupyterHub gives services an almost empty environment, but its configuration file may read any
    variable (a password, KUBECONFIG). Passing them in the service's settings would store them in
    the hub's database.
    """
    hub = os.environ.get(HUB_PID, "")
    if hub != str(os.getppid()):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        block = Path(f"/proc/{hub}/environ").read_bytes()
    except OSError as error:
        log.warning("The hub's environment cannot be read: %s", error)
        return
    for pair in block.split(b"\0"):
        name, equals, value = pair.partition(b"=")
        if equals:
            os.environ.setdefault(os.fsdecode(name), os.fsdecode(value))


async def serve(portal: Portal) -> None:
    """Run ``portal`` until a signal comes."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    starting = asyncio.create_task(portal.start())  # may have to wait for its port
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await told
        log.info("Stopping")
    finally:
        for task in (starting, told):
            await cancel_and_wait(task)
        await portal.stop()


if __name__ == "__main__":
    sys.exit(main())
