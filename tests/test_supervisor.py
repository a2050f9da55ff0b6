"""The supervisor with real child processes: readiness, restarts, failures, one at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from gpucloud_spawner.supervisor import Child, RunError, keep_all_running, start_all, stop_all

SLEEP = "import time; time.sleep(600)"


def child(tmp_path: Path, code: str, *, ready: bool = True, name: str = "thing") -> Child:
    async def is_ready() -> bool:
        return ready

    return Child(
        name, [sys.executable, "-c", code], dict(os.environ), tmp_path / f"{name}.log", is_ready
    )


async def test_a_child_that_is_killed_is_started_again(tmp_path: Path) -> None:
    one = child(tmp_path, SLEEP)
    await start_all([one])
    assert one.process is not None
    first = one.process.pid
    keeping = asyncio.create_task(keep_all_running([one]))
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(30):
        while one.process.pid == first or one.process.returncode is not None:
            await asyncio.sleep(0.02)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    await stop_all([one])
    assert not psutil.pid_exists(one.process.pid)


async def test_a_child_that_ends_while_it_starts_is_told_with_its_last_words(
    tmp_path: Path,
) -> None:
    one = child(tmp_path, "print('no licence'); raise SystemExit(3)", ready=False)
    with pytest.raises(RunError, match="ended while it started") as told:
        await one.start()
    assert "no licence" in str(told.value)


def run(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpucloud_spawner.cli", "run"],
        env={**os.environ, "GPUCLOUD_DATA": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GPUCLOUD_PORT", "http", "GPUCLOUD_PORT must be a port from 1 to"),
        ("GPUCLOUD_PORT", "65535", "GPUCLOUD_PORT must be a port from 1 to"),
        ("GPUCLOUD_CLUSTER", "minikube", "must be 'local' or 'kubeconfig', not 'minikube'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    done = run(tmp_path, **{"GPUCLOUD_PORT": "18000", variable: value})
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(tmp_path, GPUCLOUD_PORT=str(port - 1))
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert not (tmp_path / "logs").exists()


def test_a_second_run_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(tmp_path)
    assert done.returncode == 1
    assert "another gpucloud runs in" in done.stderr
