"""The Ceph kind: monitor, one OSD and RGW of the machine's own Ceph packages, without systemd.

One machine, one copy of the data, no mgr: what RGW does is real, how Ceph keeps data safe is not
shown here. Daemons are not authenticated to each other; RGW's users are.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from .files import CannotServe

NEEDED = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
PACKAGES = "ceph-mon ceph-osd radosgw ceph-common"
READY_SECONDS = 60.0
STOP_SECONDS = 20.0
BLOCK_BYTES = 20 * 2**30  # a sparse file
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

CONFIG = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = v1:127.0.0.1:{mon_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
run_dir = {data}/run
admin_socket = {data}/run/$name.asok
log_file = {data}/log/$name.log
crash_dir = {data}/crash
[mon]
mon_data = {data}/mon
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_data_avail_crit = 1
mon_data_avail_warn = 2
[osd]
osd_data = {data}/osd
osd_objectstore = {store}
# With no authentication the OSD's first command to the monitor can carry an empty fsid, which
# ends the OSD: so it sends none, and we place it in the CRUSH map by hand.
osd_class_update_on_start = false
osd_crush_update_on_start = false
# the memory store is written out only by a clean end
osd_fast_shutdown = false
osd_memory_target = 939524096
bluestore_block_size = {block}
bluestore_block_create = true
memstore_device_bytes = 2147483648
osd_max_object_name_len = 2048
[client.rgw.a]
rgw_data = {data}/rgw
# quotas hold within a second, not minutes
rgw_bucket_quota_ttl = 1
rgw_user_quota_bucket_sync_interval = 1
rgw_user_quota_sync_interval = 1
"""


def missing() -> str:
    """What of Ceph is not installed, in words; empty where all is there."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return f"{', '.join(lacking)} not found; Debian: apt-get install {PACKAGES}" if lacking else ""


class Ceph:
    """The daemons of one data folder."""

    def __init__(self, data: Path, port: int, mon_port: int, store: str = "bluestore") -> None:
        self.data = data
        self.port = port
        self.mon_port = mon_port
        self.store = store
        self.config = data / "ceph.conf"
        self.admin_file = data / "admin.json"
        self._daemons: list[tuple[str, asyncio.subprocess.Process]] = []

    async def start(self) -> None:
        """Start everything; on the first time make it. Raises CannotServe."""
        if lacking := missing():
            raise CannotServe(lacking)
        if not (self.data / "complete").exists():
            # a first start that was cut short left nothing of anyone's: begin anew
            shutil.rmtree(self.data, ignore_errors=True)
            await self._make_monitor()
        await self._daemon("ceph-mon", "-i", "a")
        await self._until("ceph-mon", lambda: self._ask("mon", "stat"))
        if (self.data / "complete").exists():
            # its daemon went with its last owner, which the monitor may not have noticed
            await self._until("ceph-mon", lambda: self._ask("osd", "down", "0"))
        else:
            await self._make_osd()
        await self._daemon("ceph-osd", "-i", "0")
        await self._until("ceph-osd", self._osd_is_up)
        if not self.admin_file.exists():  # before RGW answers: that is the sign that all is there
            await self._make_admin()
        endpoint = f"beast endpoint=127.0.0.1:{self.port}"
        await self._daemon("radosgw", "-n", "client.rgw.a", f"--rgw_frontends={endpoint}")
        await self._until("radosgw", self._rgw_answers)
        (self.data / "complete").touch()

    async def stop(self) -> None:
        """End what is running, the last one first."""
        while self._daemons:
            _, process = self._daemons.pop()
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(STOP_SECONDS):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def wait_for_an_end(self) -> str:
        """The name of the first daemon that ends by itself."""
        waits = {asyncio.ensure_future(p.wait()): name for name, p in self._daemons}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return waits[done.pop()]

    async def _make_monitor(self) -> None:
        for name in ("", "run", "log", "mon", "osd", "rgw", "crash"):
            (self.data / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        fsid = str(uuid.uuid4())
        self.config.write_text(
            CONFIG.format(
                fsid=fsid,
                data=self.data,
                mon_port=self.mon_port,
                store=self.store,
                block=BLOCK_BYTES,
            ),
            encoding="utf-8",
        )
        address = f"[v1:127.0.0.1:{self.mon_port}]"
        monmap = str(self.data / "monmap")
        await self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
        await self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)

    async def _make_osd(self) -> None:
        osd = str(uuid.uuid4())
        await self._until("ceph-mon", lambda: self._ask("osd", "new", osd))
        place = ("osd", "crush", "add", "osd.0", "1.0", "root=default", "host=one")
        await self._until("ceph-mon", lambda: self._ask(*place))
        await self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)

    async def _make_admin(self) -> None:
        """The user with whom the hub administers; its keys are made by Ceph and kept in a file."""
        caps = "users=*;buckets=*;usage=read;metadata=read"
        made = await self._run(
            "radosgw-admin",
            *(
                "user",
                "create",
                "--uid=gpucloud-admin",
                "--display-name=gpucloud",
                f"--caps={caps}",
            ),
        )
        key = json.loads(made[made.index(b"{") :])["keys"][0]
        record = {"access_key": key["access_key"], "secret_key": key["secret_key"]}
        fresh = self.admin_file.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
            json.dump(record, stream)
        fresh.replace(self.admin_file)

    async def _osd_is_up(self) -> bool:
        return b"1 up" in await self._run("ceph", "--connect-timeout", "5", "osd", "stat")

    async def _rgw_answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1")
        finally:
            writer.close()

    async def _ask(self, *words: str) -> bool:
        """Whether the monitor did it."""
        try:
            await self._run("ceph", "--connect-timeout", "5", *words)
        except CannotServe:
            return False
        return True

    async def _run(self, name: str, *words: str) -> bytes:
        config = () if name == "monmaptool" else ("-c", str(self.config))
        try:
            process = await asyncio.create_subprocess_exec(
                name,
                *config,
                *words,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise CannotServe(f"{name} cannot be started: {error}") from error
        try:
            async with asyncio.timeout(READY_SECONDS):
                output, problem = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            words_of_it = problem.decode(errors="replace").strip()[-500:]
            raise CannotServe(f"{name} failed: {words_of_it}")
        return output

    async def _daemon(self, name: str, *words: str) -> None:
        with (self.data / "log" / f"{name}.out").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                name,
                *("-c", str(self.config)),
                *words,
                "-f",  # in the foreground
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._daemons.append((name, process))

    async def _until(self, daemon: str, test: Callable[[], Awaitable[bool]]) -> None:
        """Wait for ``test`` while ``daemon`` lives. Raises CannotServe."""
        process = dict(self._daemons)[daemon]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_SECONDS
        while not await test():
            if process.returncode is not None:
                raise CannotServe(f"{daemon} ended; see {self.data}/log/{daemon}.out")
            if loop.time() > deadline:
                raise CannotServe(f"{daemon} was not ready in {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.1)


async def serve(data: Path, port: int, mon_port: int, store: str = "bluestore") -> None:
    """Run Ceph until SIGINT or SIGTERM. Raises CannotServe where it cannot or does not go on."""
    ceph = Ceph(data, port, mon_port, store)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    waiting = asyncio.create_task(stopping.wait())
    working = asyncio.create_task(_work(ceph))
    try:
        await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (waiting, working):
            task.cancel()
        await asyncio.gather(waiting, working, return_exceptions=True)
        await ceph.stop()


async def _work(ceph: Ceph) -> None:
    try:
        await ceph.start()
    except CannotServe as error:
        if missing():
            raise
        # Ceph's tools refuse now and then on a loaded machine what they do a moment later
        print(f"s3server: {error}; trying once more", file=sys.stderr, flush=True)
        await ceph.stop()
        await ceph.start()
    print(f"Ceph's RGW answers on http://127.0.0.1:{ceph.port}", flush=True)
    raise CannotServe(f"{await ceph.wait_for_an_end()} ended by itself")


def _die_with_parent() -> None:
    """In the child: a supervisor that is killed leaves no daemon behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
