"""A replica's life: code, packages, gang, checkpoints, script; and again where the gang says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from ..jobs.manifest import Manifest
from ..jobs.store import Store, words
from ..s3.failures import StoreErrors
from . import hints, workspace
from .contract import NO_GANG, NO_STORE, SIGNALLED, Failure, Replica, training_environment
from .gang import Gang
from .lead import Lead
from .mirror import Mirror
from .names import Names
from .output import Output
from .packages import Packages
from .script import Script

T = TypeVar("T")
CHECKPOINT_EVERY, LOGS_EVERY = 1.0, 3.0  # seconds
_SERVER_GRACE = 2.0  # a parameter server has nothing to save
# How long a finished member waits for a lead that does not answer: without it, a lead that starts
# again would never have its gang together.
_LEAD_GONE = 120.0
_PORT_FREE = 10.0  # how long the port of an ended script may take to become free
_STORE_BACK = 60.0


class Supervisor:
    """One replica, from its code to its script's exit code."""

    def __init__(self, replica: Replica, store: Store, output: Output) -> None:
        self._replica = replica
        self._store = store
        self._output = output
        self._names = Names()
        self._code = replica.work / "code"
        checkpoints = f"{replica.prefix}checkpoints/"
        boards = f"{replica.prefix}tensorboard/{replica.label}/"
        self._checkpoints = Mirror(
            store, checkpoints, replica.work / "checkpoints", CHECKPOINT_EVERY
        )
        self._boards = Mirror(store, boards, replica.work / "logs", LOGS_EVERY, grows=True)
        self._restarts = 0
        self._manifest = Manifest(())
        self._packages: Packages | None = None
        self._gang: Gang | None = None
        # whether the last script ended by itself: what a killed one was writing may be half
        self._is_whole = True

    async def run(self) -> int:
        """The exit code. Raises Failure; cancel it to stop the replica."""
        await self._prepare()
        async with contextlib.AsyncExitStack() as stack:
            await self._open_gang(stack)
            # the lead alone writes: copies of others would be older or half
            if self._replica.is_lead:
                await stack.enter_async_context(_running(self._checkpoints.keep_up()))
            elif self._replica.role == "evaluator":
                await stack.enter_async_context(_running(self._checkpoints.keep_down()))
            await stack.enter_async_context(_running(self._boards.keep_up()))
            while True:
                code = await self._attempt()
                if code is not None:
                    return code
                self._output.say("a replica was lost: starting again from the last checkpoint")
                # before the others are told to go on: they read the same
                await self._send_checkpoints(_STORE_BACK)
                self._restarts += 1
                await asyncio.to_thread(self._note_restarts)

    async def finish(self) -> None:
        """Send what is not there yet; after `run`, however that ended."""
        boards = asyncio.to_thread(self._boards.up, True)
        await asyncio.gather(boards, self._send_checkpoints(0.0))

    async def _send_checkpoints(self, patience: float) -> None:
        """The lead's last ones; ``patience``: seconds for a store that is away."""
        if not self._replica.is_lead:
            return
        deadline = asyncio.get_running_loop().time() + patience
        while not await asyncio.to_thread(self._checkpoints.up, self._is_whole):
            if asyncio.get_running_loop().time() >= deadline:
                self._output.say("the last checkpoints could not be sent to the bucket")
                return
            await asyncio.sleep(2.0)

    def last_lines(self, count: int) -> list[str]:
        """What the script said last."""
        return self._output.tail()[-count:]

    # --- before the gang ---

    async def _prepare(self) -> None:
        replica = self._replica
        fetching = self._from_store(
            "The job's code", lambda: workspace.fetch(self._store, replica.code, self._code)
        )
        counting = asyncio.to_thread(self._count_restarts)
        self._manifest, _ = await asyncio.gather(fetching, counting)
        again = f", restart {self._restarts}" if self._restarts else ""
        self._output.say(f"{replica.label} of {replica.name} on {socket.gethostname()}{again}")
        if self._manifest.packages:
            self._packages = Packages(self._manifest.packages, replica.cache, self._store)
            await self._packages.install(self._output)

    def _count_restarts(self) -> None:
        try:
            data = self._store.get(self._starts_key)
            self._restarts = int(json.loads(data)["starts"]) if data else 0
        except (*StoreErrors, ValueError, KeyError, TypeError) as error:
            self._output.say(f"the number of restarts is not known: {words(error)}")
        self._note_restarts()

    def _note_restarts(self) -> None:
        data = json.dumps({"starts": self._restarts + 1}).encode()
        with contextlib.suppress(*StoreErrors):
            self._store.put(self._starts_key, data, "application/json")

    @property
    def _starts_key(self) -> str:
        return f"{self._replica.prefix}replicas/{self._replica.label}.json"

    async def _open_gang(self, stack: contextlib.AsyncExitStack) -> None:
        replica = self._replica
        if not replica.is_member or len(replica.members) < 2:
            return
        if replica.is_lead:
            lead = Lead(replica)
            host, _, port = replica.rendezvous.rpartition(":")
            # every address: the name of a pod may not resolve in the pod itself yet
            private = self._names.address(host) or ""
            try:
                await lead.start(private if private.startswith("127.") else "", int(port))
            except OSError as error:
                raise Failure(
                    NO_GANG, "port_taken", f"Port {port} of the rendezvous is taken: {error}"
                ) from error
            stack.push_async_callback(lead.close)
        self._gang = Gang(replica, self._names, self._output.say)
        await stack.enter_async_context(_running(self._gang.run()))

    # --- one run of the script ---

    async def _attempt(self) -> int | None:
        """The replica's exit code, or None: the gang begins again."""
        if self._gang is not None and (await self._gather()) == "end":
            return 0
        await self._restore()
        await self._wait_for_port()
        self._output.forget_tail()
        script = await Script.start(
            self._command(), self._code, await asyncio.to_thread(self._environment), self._output
        )
        ended = asyncio.create_task(script.wait())
        try:
            return await self._follow(script, ended)
        finally:
            # also when cancelled: the replica is stopped
            if not ended.done():
                await script.stop(self._grace)
            self._is_whole = await ended < SIGNALLED

    @property
    def _grace(self) -> float:
        return _SERVER_GRACE if self._replica.serves else self._replica.grace_seconds

    async def _gather(self) -> str:
        assert self._gang is not None
        self._gang.restart = self._restarts
        try:
            async with asyncio.timeout(self._replica.gang_seconds):
                return str((await self._gang.gather())["do"])
        except TimeoutError:
            missing = ", ".join(self._gang.missing) or self._replica.lead
            waited = f"{self._replica.gang_seconds:.0f} s"
            raise Failure(
                NO_GANG,
                "gang_incomplete",
                f"Not all replicas were there within {waited}: {missing} did not come.",
            ) from None

    async def _restore(self) -> None:
        """The checkpoints as the lead last sent them: the same for every replica, and whole."""
        if self._replica.serves:
            return  # its coordinator reads them
        count = await self._from_store("The checkpoints", self._checkpoints.reset)
        if count:
            self._output.say(f"{count} checkpoint files are back from the bucket")

    async def _from_store(self, what: str, read: Callable[[], T]) -> T:
        """What ``read`` gets from the bucket; a store that restarts is waited for. Raises Failure
        with a code after which Kubernetes starts the replica again."""
        deadline = asyncio.get_running_loop().time() + _STORE_BACK
        said = ""
        while True:
            try:
                return await asyncio.to_thread(read)
            except StoreErrors as error:
                if asyncio.get_running_loop().time() > deadline:
                    text = f"{what} could not be read: {words(error)}."
                    raise Failure(NO_STORE, "store_unavailable", text) from error
                if said != (said := words(error)):
                    self._output.say(f"{what} cannot be read yet, trying again: {said}")
            await asyncio.sleep(2.0)

    async def _wait_for_port(self) -> None:
        """The script's server binds it; one that another process has would be a riddle."""
        _, _, port = self._replica.address.rpartition(":")
        if not port or len(self._replica.members) < 2:
            return
        deadline = asyncio.get_running_loop().time() + _PORT_FREE
        while not _is_free(int(port)):
            if asyncio.get_running_loop().time() > deadline:
                text = f"Port {port} of this replica is taken by another process on its node."
                raise Failure(NO_GANG, "port_taken", text)
            await asyncio.sleep(0.1)

    async def _follow(self, script: Script, ended: asyncio.Task[int]) -> int | None:
        if self._gang is None:
            await asyncio.wait({ended})  # not `await ended`, which would cancel it with us
            return self._told(ended.result())
        gang, alone_since = self._gang, None
        loop = asyncio.get_running_loop()
        while not ended.done():
            asked = asyncio.create_task(gang.next(1.0))
            try:
                await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
                command = _command_of(asked)
            finally:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            if command == "again":
                await script.stop(self._grace)
                return None
            if command == "end":
                await script.stop(self._grace)
                return 0
            alone_since = None if gang.connected else alone_since or loop.time()
            limit = self._replica.gang_seconds
            if self._replica.serves and alone_since and loop.time() - alone_since > limit:
                text = f"{self._replica.lead} is gone, and did not come back."
                raise Failure(NO_GANG, "lead_lost", text)
        return await self._agree(ended.result())

    async def _agree(self, code: int) -> int | None:
        """After the script's end: is that the end, or does the gang begin again?"""
        assert self._gang is not None
        if code:
            self._output.say(f"the script ended with exit code {code}")
        self._gang.report("failed" if code else "done")
        waited = 0.0
        limit = self._replica.gang_seconds
        if not code:
            limit = min(limit, _LEAD_GONE)
        while waited < limit:
            try:
                command = (await self._gang.next(1.0))["do"]
            except TimeoutError:
                waited = 0.0 if self._gang.connected else waited + 1.0
                continue
            if command == "again":
                return None
            if command == "end":
                return 0
            if command == "exit":
                break
        return self._told(code)

    def _told(self, code: int) -> int:
        if code and (hint := hints.find(self._output.tail())):
            self._output.say(f"hint: {hint}")
        return code

    def _command(self) -> list[str]:
        first, *rest = self._replica.command
        # the one that the packages were installed for, whatever PATH says
        return [sys.executable if first in ("python", "python3") else first, *rest]

    def _environment(self) -> dict[str, str]:
        replica = self._replica
        found = {
            **os.environ,
            **training_environment(replica, self._names.reachable),
            "GPUCLOUD_REPLICA": replica.label,
            "GPUCLOUD_RESTART": str(self._restarts),
            "GPUCLOUD_CHECKPOINT_DIR": str(self._checkpoints.folder),
            "GPUCLOUD_CHECKPOINT_URI": f"s3://{self._store.name}/{replica.prefix}checkpoints/",
            "GPUCLOUD_LOG_DIR": str(self._boards.folder),
            "PYTHONUNBUFFERED": "1",
        }
        folders = [self._code / path for path in self._manifest.import_paths]
        if self._packages is not None:
            folders.append(self._packages.folder)
            _prepend(found, "PATH", [self._packages.folder / "bin"])
        _prepend(found, "PYTHONPATH", folders)
        return found


def _command_of(asked: asyncio.Task[dict[str, Any]]) -> str:
    """What came; empty for nothing so far. Raises Failure."""
    if not asked.done() or isinstance(asked.exception(), TimeoutError):
        return ""
    return str(asked.result()["do"])


def _prepend(environment: dict[str, str], name: str, folders: list[Path]) -> None:
    known = [environment[name]] if environment.get(name) else []
    if folders:
        environment[name] = os.pathsep.join([*map(str, folders), *known])


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """``work`` as a task that ends with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
