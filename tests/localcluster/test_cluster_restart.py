"""The local cluster as processes: kubelets that die and return, `up` from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from gpucloud_spawner.localcluster.__main__ import main
from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.scheduler import Scheduler

from .support import (
    NAMESPACE,
    Cluster,
    api,
    gpus,
    is_ready,
    pod,
    processes_with,
    shell,
    state_of,
    terminated,
)

MODULE = [sys.executable, "-m", "gpucloud_spawner.localcluster"]
START_SECONDS = 30.0


class Program:
    """One command of the local cluster as a child process, with its output's lines."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.arguments = [*MODULE, *arguments]
        self.env = {**os.environ, **(env or {})}
        self.lines: list[str] = []
        self.errors: list[str] = []

    async def __aenter__(self) -> Program:
        self.process = await asyncio.create_subprocess_exec(
            *self.arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read_errors())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(line.decode())

    async def line(self, text: str) -> str:
        """Waits for a line of its output that has this text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            async for line in self.process.stdout:
                self.lines.append(line.decode().strip())
                if text in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"ended without {text!r}: {self.lines} {self.errors}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(15):
            return await self.process.wait()


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    """API server and scheduler; the kubelet is a process of its own."""
    async with api(apiserver, tmp_path) as cluster, Scheduler(cluster.client):
        yield cluster
    for process in processes_with(str(tmp_path)):
        process.kill()


def kubelet(cluster: Cluster) -> Program:
    where = ["--kubeconfig", str(cluster.server.kubeconfig), "--data", str(cluster.data / "k")]
    node = ["--node", "node-0", "--gpus", "2"]
    return Program("kubelet", *where, *node)


async def test_containers_outlive_a_killed_kubelet(cluster: Cluster) -> None:
    async with kubelet(cluster) as first:
        await first.line("kubelet is running")
        stays = await cluster.started(pod("stays", "sleep", "300", container=gpus(1)))
        script = "while [ ! -e go ]; do sleep 0.02; done; exit 7"
        ends = await cluster.started(shell("ends", script, container=gpus(1)))
        strays = await cluster.started(pod("strays", "sleep", "300"))
        await first.end(signal.SIGKILL)
    sleeper = next(p for p in processes_with(stays["metadata"]["uid"]) if p.name() == "sleep")

    # While no kubelet looks: one ends by itself, one is deleted.
    home = cluster.data / "k/pods" / ends["metadata"]["uid"] / "home/c"
    (home / "go").touch()
    await cluster.delete("strays", grace=0)
    await cluster.gone("strays")

    async with kubelet(cluster) as second:
        await second.line("kubelet is running")
        obj = await cluster.phase("ends", "Failed")
        assert terminated(obj)["exitCode"] == 7
        assert state_of(obj)["restartCount"] == 0
        async with asyncio.timeout(10):
            while processes_with(strays["metadata"]["uid"]):
                await asyncio.sleep(0.02)
        # The one that stayed is the same process, still holds its GPU, and can be ended.
        assert sleeper.is_running()
        held = sleeper.environ()["CUDA_VISIBLE_DEVICES"]
        given = await cluster.output(shell("new", "echo $CUDA_VISIBLE_DEVICES", container=gpus(1)))
        assert {held, given.strip()} == {"0", "1"}
        await cluster.delete("stays")
        await cluster.gone("stays")
        assert not sleeper.is_running()
        assert await second.end() == 0


async def test_a_kubelet_that_ends_takes_its_containers_along(cluster: Cluster) -> None:
    async with kubelet(cluster) as first:
        await first.line("kubelet is running")
        obj = await cluster.started(pod("a", "sleep", "300", restartPolicy="Always"))
        uid = obj["metadata"]["uid"]
        assert processes_with(uid)
        assert await first.end(signal.SIGINT) == 0
        assert processes_with(uid) == []
    assert (await cluster.client.get("pods", "a", NAMESPACE))["status"]["phase"] == "Running"
    async with kubelet(cluster) as second:
        await second.line("kubelet is running")
        obj = await cluster.until("a", lambda p: state_of(p).get("restartCount") == 1)
        assert obj["metadata"]["uid"] == uid
        assert await second.end() == 0


def up(data: Path, *more: str) -> Program:
    env = {"GPUCLOUD_NODES": "2", "GPUCLOUD_GPUS_PER_NODE": "1"}
    return Program("up", "--data", str(data), *more, env=env)


@contextlib.asynccontextmanager
async def client_of(data: Path) -> AsyncIterator[KubeClient]:
    async with KubeClient.from_kubeconfig(str(data / "kubeconfig")) as client:
        yield client


async def phase_of(client: KubeClient, name: str, wanted: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while (await client.get("pods", name, NAMESPACE))["status"]["phase"] != wanted:
            await asyncio.sleep(0.02)


async def test_up_from_start_to_end(tmp_path: Path) -> None:
    async with up(tmp_path) as first:
        line = await first.line("is ready")
        assert line == f"local cluster is ready: KUBECONFIG={tmp_path / 'kubeconfig'}"
        assert "isolates nobody" in first.lines[0]
        assert stat.S_IMODE((tmp_path / "kubeconfig").stat().st_mode) == 0o600
        async with client_of(tmp_path) as client:
            names = {n["metadata"]["name"] for n in (await client.list("nodes"))["items"]}
            assert names == {"node-0", "node-1"}
            body = pod("a", "sleep", "300", restartPolicy="Always", container=gpus(1))
            await client.create("pods", body, NAMESPACE)
            await phase_of(client, "a", "Running")
        async with up(tmp_path) as second:
            assert await second.process.wait() == 1
        assert "in use by another local cluster" in second.errors[-1]
        assert str(first.process.pid) in second.errors[-1]
        assert await first.end() == 0
    assert processes_with(str(tmp_path)) == []

    async with up(tmp_path) as again:
        await again.line("is ready")
        async with client_of(tmp_path) as client:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    obj = await client.get("pods", "a", NAMESPACE)
                    if is_ready(obj) and state_of(obj)["restartCount"] == 1:
                        break
                    await asyncio.sleep(0.02)
        assert await again.end(signal.SIGINT) == 0
    assert processes_with(str(tmp_path)) == []


async def test_up_ends_with_its_parent(tmp_path: Path) -> None:
    arguments = [*MODULE, "up", "--data", str(tmp_path), "--exit-with-parent"]
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen({arguments!r}, stdout=subprocess.PIPE, text=True)\n"
        "for line in p.stdout:\n"
        "    if 'is ready' in line: print(p.pid, flush=True); break\n"
        "time.sleep(300)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        child = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(child.wait, 15)


async def test_a_signal_while_it_starts(tmp_path: Path) -> None:
    async with up(tmp_path) as program:
        await program.line("isolates nobody")
        assert await program.end() == 0
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ([], {"GPUCLOUD_NODES": "many"}, "GPUCLOUD_NODES must be a whole number"),
        (["--extended-resource", "fpga"], {}, "--extended-resource must be like"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    tmp_path: Path,
    arguments: list[str],
    env: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["localcluster", "up", "--data", str(tmp_path), *arguments])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
