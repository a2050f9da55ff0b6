"""How fast the local cluster's API server is: creates, watch latency, memory at 5,000 pods.

The peer, measured in the same run by the same client, is a bare aiohttp handler over HTTPS that
keeps a dict and an SQLite row per pod and knows nothing of Kubernetes: what is between the two is
the price of Kubernetes' semantics. Pods have no kubelet: this client sets their status to Running.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from aiohttp import web

from bench.report import report
from gpucloud_spawner.localcluster.apiserver.pki import Certificates

PODS = 5000
TIMED = 2000  # creates that are timed on each server
WATCHED = 500
CONNECTIONS = 16
JSON = "application/json"
PATH = "/api/v1/namespaces/default/pods"
RUNNING = {
    "phase": "Running",
    "podIP": "127.64.0.9",
    "hostIP": "127.64.0.1",
    "startTime": "2026-01-01T00:00:00Z",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [
        {
            "name": "notebook",
            "ready": True,
            "restartCount": 0,
            "image": "jupyter:1",
            "imageID": "",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
    ],
}


def pod(name: str) -> dict[str, Any]:
    """About what KubeSpawner sends: labels, annotations, an environment, a volume."""
    env = [{"name": f"JUPYTERHUB_VARIABLE_{i}", "value": f"value of {i}"} for i in range(20)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": "jupyterhub", "component": "singleuser-server", "user": name},
            "annotations": {"hub.jupyter.org/username": name},
        },
        "spec": {
            "containers": [
                {
                    "name": "notebook",
                    "image": "jupyter:1",
                    "args": ["jupyterhub-singleuser"],
                    "env": env,
                    "ports": [{"containerPort": 8888, "name": "notebook-port"}],
                    "resources": {
                        "requests": {"cpu": "500m", "memory": "1Gi"},
                        "limits": {"nvidia.com/gpu": "1"},
                    },
                    "volumeMounts": [{"name": "home", "mountPath": "/home/jovyan"}],
                }
            ],
            "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": f"claim-{name}"}}],
            "restartPolicy": "OnFailure",
        },
    }


class Peer:
    """POST stores, GET ?watch streams: the least that answers the same requests."""

    def __init__(self, data: Path) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.queues: set[asyncio.Queue[bytes]] = set()
        self.db = sqlite3.connect(data / "peer.sqlite", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute("CREATE TABLE pod (name TEXT PRIMARY KEY, body BLOB)")

    async def create(self, request: web.Request) -> web.Response:
        obj = json.loads(await request.read())
        name = obj["metadata"]["name"]
        body = json.dumps(obj).encode()
        self.pods[name] = obj
        self.db.execute("INSERT INTO pod VALUES (?, ?)", (name, body))
        for queue in self.queues:
            queue.put_nowait(b'{"type":"ADDED","object":' + body + b"}\n")
        return web.Response(body=body, status=201, content_type="application/json")

    async def watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues.add(queue)
        try:
            while True:
                await response.write(await queue.get())
        except ConnectionError:
            self.queues.discard(queue)
        return response

    async def serve(self, data: Path) -> None:
        certificates = Certificates(data)
        certificates.ensure("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate, certificates.key)
        app = web.Application()
        app.router.add_post(PATH, self.create)
        app.router.add_get(PATH, self.watch)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        config = {
            "clusters": [{"cluster": {"server": f"https://127.0.0.1:{runner.addresses[0][1]}"}}],
            "users": [{"user": {"token": "peer"}}],
        }
        (data / "kubeconfig").write_text(yaml.safe_dump(config))
        await asyncio.Event().wait()


class Client:
    """As little HTTP/1.1 as possible: with a whole HTTP library in between, the client is what one
    measures. Each call takes a connection of its own; connections are kept."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext) -> None:
        self._host, self._port = url.removeprefix("https://").split(":")
        self._authorization = f"Authorization: Bearer {token}\r\nHost: {self._host}\r\n"
        self._context = context
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._free:
            return self._free.pop()
        return await asyncio.open_connection(
            self._host, int(self._port), ssl=self._context, limit=2**20
        )

    def _send(
        self, writer: asyncio.StreamWriter, method: str, path: str, kind: str, body: bytes
    ) -> None:
        head = f"{method} {path} HTTP/1.1\r\n{self._authorization}Content-Type: {kind}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def call(self, method: str, path: str, body: bytes, kind: str = JSON) -> int:
        """The status of the answer, whose body is read and dropped."""
        reader, writer = connection = await self._connected()
        self._send(writer, method, path, kind, body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        self._free.append(connection)
        return int(head.split(b" ", 2)[1])

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[asyncio.StreamReader]:
        reader, writer = await self._connected()
        self._send(writer, "GET", f"{PATH}?watch=1", JSON, b"")
        await reader.readuntil(b"\r\n\r\n")
        try:
            yield reader
        finally:
            writer.close()

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


@asynccontextmanager
async def server(*command: str) -> AsyncIterator[tuple[psutil.Process, Client]]:
    """A server in a process of its own and a client of it."""
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--data", directory, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            kubeconfig = data / "kubeconfig"
            async with asyncio.timeout(30):
                while not kubeconfig.exists() or not kubeconfig.read_text():
                    await asyncio.sleep(0.05)
            config = yaml.safe_load(kubeconfig.read_text())
            url = config["clusters"][0]["cluster"]["server"]
            context = ssl.create_default_context(cafile=str(data / "ca.crt"))
            client = Client(url, config["users"][0]["user"]["token"], context)
            yield psutil.Process(child.pid), client
            client.close()
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(child.wait(), 10)
            except TimeoutError:
                child.kill()
                await child.wait()


async def in_parallel(
    names: Sequence[str], work: Callable[[str], Coroutine[Any, Any, None]]
) -> float:
    """Seconds for all of it over the keep-alive connections."""
    left = iter(names)

    async def worker() -> None:
        for name in left:
            await work(name)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    return time.perf_counter() - start


def creator(client: Client) -> Callable[[str], Coroutine[Any, Any, None]]:
    template = json.dumps(pod("@name@"))

    async def create(name: str) -> None:
        status = await client.call("POST", PATH, template.replace("@name@", name).encode())
        assert status == 201, status

    return create


async def watch_latency(client: Client) -> list[float]:
    """Milliseconds from sending a create to the event on an open watch, one at a time."""
    create = creator(client)
    times = []
    async with client.watch() as lines:
        for i in range(WATCHED):
            name = f"watched-{i}"
            wanted = f'"{name}"'.encode()
            start = time.perf_counter()
            posted = asyncio.create_task(create(name))
            async with asyncio.timeout(10):
                while wanted not in await lines.readline():
                    pass
            times.append((time.perf_counter() - start) * 1000)
            await posted
    return times


def mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def row(name: str, seconds: float, latency: list[float]) -> dict[str, Any]:
    return {
        "server": name,
        "creates/s": round(TIMED / seconds),
        "watch p50 ms": statistics.median(latency),
        "watch p99 ms": statistics.quantiles(latency, n=100)[98],
    }


async def measure_peer() -> dict[str, Any]:
    async with server("-m", "bench.cluster", "--peer") as (_, client):
        latency = await watch_latency(client)
        seconds = await in_parallel([f"pod-{i}" for i in range(TIMED)], creator(client))
        return row("bare aiohttp + SQLite", seconds, latency)


async def measure_apiserver() -> tuple[dict[str, Any], dict[str, Any]]:
    async with server("-m", "gpucloud_spawner.localcluster.apiserver") as (process, client):
        empty = mib(process)
        latency = await watch_latency(client)
        seconds = await in_parallel([f"pod-{i}" for i in range(TIMED)], creator(client))
        rest = [f"pod-{i}" for i in range(TIMED, PODS - WATCHED)]
        await in_parallel(rest, creator(client))
        everything = [f"pod-{i}" for i in range(PODS - WATCHED)]
        everything += [f"watched-{i}" for i in range(WATCHED)]
        status = await in_parallel(everything, _runner(client))
        return row("local cluster", seconds, latency), {
            "status writes/s": round(PODS / status),
            "MiB empty": empty,
            f"MiB at {PODS} running pods": mib(process),
        }


def _runner(client: Client) -> Callable[[str], Coroutine[Any, Any, None]]:
    body = json.dumps({"status": RUNNING}).encode()

    async def run(name: str) -> None:
        path = f"{PATH}/{name}/status"
        status = await client.call("PATCH", path, body, "application/merge-patch+json")
        assert status == 200, status

    return run


async def bench() -> None:
    ours, more = await measure_apiserver()
    peer = await measure_peer()
    ratio = ours["creates/s"] / peer["creates/s"]
    report(
        "cluster", [ours, peer], **more, **{"creates, ours / peer": ratio, "cpus": os.cpu_count()}
    )


def main() -> None:
    asyncio.run(bench())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.peer:
        asyncio.run(Peer(arguments.data).serve(arguments.data))
    else:
        main()
