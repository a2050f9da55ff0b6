"""From "start" to a ready server, and from "stop" to a GPU that is free again.

Three hubs run at once on one machine and are asked in turn: gpucloud, plain KubeSpawner with the
same manifest on the same local cluster, and JupyterHub's own SimpleLocalProcessSpawner. Then
everything rests, and its CPU time and memory are read.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.cloud import Cloud, User, wait_for

from .report import report

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 10)
IDLE_SECONDS = 30
SITES = Path(__file__).parent / "sites"
ROOT = Path(__file__).parent.parent


class Hub(Cloud):
    """A second and third hub beside the first one's cluster, with a configuration of their own."""

    def __init__(self, data: Path, config: Path, kubeconfig: Path) -> None:
        super().__init__(data, config, GPUCLOUD_CLUSTER="kubeconfig", KUBECONFIG=str(kubeconfig))
        self.kubeconfig = kubeconfig


def measure(user: User, options: dict[str, str], gpu_free: Callable[[], bool]) -> dict[str, float]:
    """Seconds of one start and one stop."""
    began = time.perf_counter()
    answer = user.api("POST", "/server", json={"user_options": options})
    assert answer.status_code in (201, 202), answer.text
    wait_for(user.is_ready, "ready", every=0.02)
    ready = time.perf_counter()
    answer = user.api("DELETE", "/server")
    assert answer.status_code in (202, 204), answer.text
    wait_for(gpu_free, "the GPU is free", every=0.02)
    freed = time.perf_counter()
    wait_for(user.is_stopped, "stopped", every=0.02)
    return {"start": ready - began, "stop": freed - ready}


def idle(cloud: Cloud) -> list[dict[str, Any]]:
    """CPU share and memory of each process of a resting `make run`."""
    assert cloud.process is not None
    top = psutil.Process(cloud.process.pid)
    family = [top, *top.children(recursive=True)]
    before = {p.pid: sum(p.cpu_times()[:2]) for p in family}
    time.sleep(IDLE_SECONDS)
    rows = []
    for process in family:
        used = sum(process.cpu_times()[:2]) - before[process.pid]
        rows.append(
            {
                "process": _name(process),
                "cpu_percent_of_a_core": 100 * used / IDLE_SECONDS,
                "rss_mib": process.memory_info().rss // 2**20,
            }
        )
    total = sum(r["cpu_percent_of_a_core"] for r in rows)
    rows.append(
        {
            "process": "all",
            "cpu_percent_of_a_core": total,
            "rss_mib": sum(r["rss_mib"] for r in rows),
        }
    )
    return rows


def _name(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    for name in ("localcluster", "configurable-http-proxy", "jupyterhub", "gpucloud"):
        if name in words:
            return name
    return process.name()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        ours = Cloud(data / "ours", ROOT / "hub_config" / "jupyterhub_config.py").start()
        plain = Hub(data / "plain", SITES / "plain_config.py", data / "ours" / "kubeconfig").start()
        simple = Hub(
            data / "simple", SITES / "simple_config.py", data / "ours" / "kubeconfig"
        ).start()
        try:
            resting = idle(ours)
            rows = compare(ours, plain, simple)
        finally:
            for hub in (simple, plain, ours):
                hub.stop()
    report("spawn", rows, rounds=ROUNDS)
    report("idle", resting, seconds=IDLE_SECONDS)


def compare(ours: Cloud, plain: Cloud, simple: Cloud) -> list[dict[str, Any]]:
    def pod_gone(user: User, namespace: str) -> Callable[[], bool]:
        path = f"/api/v1/namespaces/{namespace}/pods"
        return lambda: (
            not any(
                p["metadata"]["annotations"].get("hub.jupyter.org/username") == user.name
                for p in ours.kube(path)["items"]
            )
        )

    users = {
        "gpucloud": ours.user("ada"),
        "plain KubeSpawner": plain.user("bob"),
        "SimpleLocalProcessSpawner": simple.user("eve"),
    }
    gone: dict[str, Callable[[], bool]] = {
        "gpucloud": pod_gone(users["gpucloud"], "gpucloud"),
        "plain KubeSpawner": pod_gone(users["plain KubeSpawner"], "gpucloud"),
        "SimpleLocalProcessSpawner": users["SimpleLocalProcessSpawner"].is_stopped,
    }
    options = {"gpucloud": {"profile": "tensorflow", "gpus": "1"}}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in users}
    for round_number in range(ROUNDS + 1):
        for name, user in users.items():
            taken = measure(user, options.get(name, {}), gone[name])
            if round_number:  # the first one warms caches
                times[name].append(taken)
    base = {
        what: statistics.median(t[what] for t in times["plain KubeSpawner"])
        for what in ("start", "stop")
    }
    rows = []
    for name, taken in times.items():
        row: dict[str, Any] = {"spawner": name}
        for what in ("start", "stop"):
            values = sorted(t[what] for t in taken)
            row[f"{what}_median_s"] = statistics.median(values)
            row[f"{what}_max_s"] = values[-1]
            row[f"{what}_x_plain"] = statistics.median(values) / base[what]
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
