"""`python -m gpucloud_labext.runner`: the command of every replica of a job.

Reads the environment, runs the replica, and ends with an exit code and last words from which the
controller knows what happened; the work itself is in `replica/`. Imports no Jupyter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from .jobs.store import NoStore, Store
from .replica import hints
from .replica.contract import (
    NO_CODE,
    STOPPED,
    TRAINING,
    ContractError,
    Failure,
    Replica,
    last_words,
    read,
)
from .replica.output import Output
from .replica.supervisor import Supervisor

# Replicas of a big job together write so many objects a second at most.
_WRITES_PER_SECOND = 16
_LAST_LINES = 15


async def run(replica: Replica, store: Store) -> int:
    """Run one replica; its exit code. SIGTERM and SIGINT stop it."""
    every = max(1.0, len(replica.members) / _WRITES_PER_SECOND)
    output = Output(store, replica.prefix, replica.label, every)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await asyncio.to_thread(output.begin)
    sending = asyncio.create_task(output.run())
    supervisor = Supervisor(replica, store, output)
    try:
        code, reason, message = await _until_stopped(supervisor, replica, stopping)
        if message and reason != "script_failed":
            output.say(message)
        await supervisor.finish()
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        await asyncio.to_thread(output.send)
    hint = hints.find(output.tail()) if reason == "script_failed" else None
    last_words(replica.termination_log, reason, message, **({"hint": hint} if hint else {}))
    return code


async def _until_stopped(
    supervisor: Supervisor, replica: Replica, stopping: asyncio.Event
) -> tuple[int, str, str]:
    """Exit code, reason and words."""
    work = asyncio.create_task(supervisor.run())
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (work, stop):
            task.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
    if work.cancelled():
        # those that serve others have done their work when they are told to end
        return (STOPPED if replica.role in TRAINING else 0), "stopped", "stopped"
    try:
        code = work.result()
    except Failure as failure:
        return failure.code, failure.reason, failure.message
    if code == 0:
        return 0, "succeeded", ""
    return code, "script_failed", "\n".join(supervisor.last_lines(_LAST_LINES))


def main() -> int:
    logging.basicConfig(format="gpucloud: %(message)s", level=logging.WARNING)
    try:
        replica = read()
        store = Store.of_environment()
    except (ContractError, NoStore, ValueError) as error:
        print(f"gpucloud: {error}", file=sys.stderr)
        return NO_CODE
    return asyncio.run(run(replica, store))


if __name__ == "__main__":
    sys.exit(main())
