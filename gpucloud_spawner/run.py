"""`gpucloud run`: local cluster, S3 server and hub as children of one foreground process.

State is kept in GPUCLOUD_DATA. How children are kept running is `supervisor`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from .supervisor import Child, RunError, keep_all_running, say, start_all, stop_all

# the hub's public one, its API's, the proxy's API's, the service's, S3's, Ceph's monitor's
PORTS = 6


async def run(config: Path) -> None:
    """Run everything until SIGINT or SIGTERM. Raises RunError where it cannot run."""
    if not config.is_file():
        raise RunError(f"there is no {config}: run this in the project's folder, or give --config")
    data = Path(os.environ.get("GPUCLOUD_DATA") or ".gpucloud").absolute()
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)  # it holds tokens, keys and everybody's files
    with _only_one(data):
        _refuse_taken_ports()
        await _run(_children(config.absolute(), data), data)


async def _run(children: list[Child], data: Path) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    work = asyncio.create_task(_work(children, data))
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        say("stopping; user servers start again with the next run")
    finally:
        for task in (work, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RunError):
                await task
        await stop_all(children)


async def _work(children: list[Child], data: Path) -> None:
    await start_all(children)
    say(f"logs are in {data / 'logs'}")
    if os.environ.get("GPUCLOUD_CLUSTER", "local") in ("", "local"):
        say("every server is a process of yours: this isolates nobody; it is for trying things")
    password = data / "password"
    if password.is_file():
        say(f"other machines can reach the hub: its password is in {password}")
    print(f"gpucloud is ready at http://127.0.0.1:{_port()}", flush=True)
    await keep_all_running(children)


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold ``data`` for this process; the kernel lets go of it, however we end."""
    with (data / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another gpucloud runs in {data}: end it, or choose another GPUCLOUD_DATA"
            ) from None
        yield


def _port() -> int:
    text = os.environ.get("GPUCLOUD_PORT") or "8000"
    if not text.isdecimal() or not 0 < int(text) <= 65535 - PORTS:
        raise RunError(f"GPUCLOUD_PORT must be a port from 1 to {65535 - PORTS}, not {text!r}")
    return int(text)


def _refuse_taken_ports() -> None:
    for port in range(_port(), _port() + PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no owner
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if _is_left_proxy(port):
                    continue
                raise RunError(
                    f"port {port} cannot be used ({error.strerror}): free it, or set GPUCLOUD_PORT "
                    f"(it and the {PORTS - 1} ports above it are used)"
                ) from error


def _is_left_proxy(port: int) -> bool:
    """Whether the port may be that of a proxy of ours that outlived a killed hub.

    The hub ends it by its pid file when it starts.
    """
    data = Path(os.environ.get("GPUCLOUD_DATA") or ".gpucloud")
    return port in (_port(), _port() + 2) and (data / "proxy.pid").is_file()


def _children(config: Path, data: Path) -> list[Child]:
    here = Path(sys.executable).parent
    cluster = os.environ.get("GPUCLOUD_CLUSTER") or "local"
    environment = dict(os.environ)
    # our environment's own programs first: jupyterhub, and node where the machine has none
    environment["PATH"] = f"{here}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment["GPUCLOUD_DATA"] = str(data)
    # tells the configuration that this is one machine of one person (hub_config/local.py)
    environment["GPUCLOUD_RUN"] = cluster
    children = []
    if cluster == "local":
        environment["KUBECONFIG"] = str(data / "kubeconfig")
        children.append(_local_cluster(data, environment))
    elif cluster != "kubeconfig":
        raise RunError(f"GPUCLOUD_CLUSTER must be 'local' or 'kubeconfig', not {cluster!r}")
    kind = _s3_kind(cluster)
    # read by hub_config/local.py, which knows the server's port by the same rule
    environment["GPUCLOUD_S3"] = kind
    if kind in ("rclone", "ceph"):
        children.append(_s3_server(kind, data, environment))
    hub = Child(
        name="hub",
        command=[sys.executable, "-m", "jupyterhub", "--config", str(config)],
        environment=environment,
        log=data / "logs" / "hub.log",
        is_ready=_answers(f"http://127.0.0.1:{_port()}/hub/login"),
    )
    return [*children, hub]


def _s3_kind(cluster: str) -> str:
    """rclone, ceph, none, or the URL of an S3 endpoint that is there already."""
    # pods on other machines would not reach a server on loopback
    kind = os.environ.get("GPUCLOUD_S3") or ("rclone" if cluster == "local" else "none")
    if kind in ("rclone", "ceph", "none") or kind.startswith(("https://", "http://")):
        return kind
    raise RunError(f"GPUCLOUD_S3 must be rclone, ceph, none or a URL, not {kind!r}")


def _s3_server(kind: str, data: Path, environment: dict[str, str]) -> Child:
    port, folder = _port() + 4, data / {"rclone": "s3", "ceph": "ceph"}[kind]
    command = [sys.executable, "-m", "gpucloud_spawner.s3server", "--kind", kind]
    command += ["--data", str(folder), "--port", str(port), "--mon-port", str(port + 1)]
    ready = _answers(f"http://127.0.0.1:{port}/", refusal=True)
    return Child("S3 server", command, environment, data / "logs" / "s3.log", ready)


def _local_cluster(data: Path, environment: dict[str, str]) -> Child:
    ready = data / "kubeconfig"
    command = [sys.executable, "-m", "gpucloud_spawner.localcluster", "up", "--data", str(data)]

    async def is_ready() -> bool:
        return ready.is_file()

    log = data / "logs" / "cluster.log"
    return Child("local cluster", command, environment, log, is_ready, sign_of_life=ready)


def _answers(url: str, refusal: bool = False) -> Callable[[], Awaitable[bool]]:
    """Asks ``url``; ``refusal``: an error of HTTP is an answer, too."""
    # never through a proxy that the environment names: it is loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask() -> bool:
        try:
            with opener.open(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return refusal
        except OSError:  # URLError is one
            return False

    async def is_ready() -> bool:
        return await asyncio.to_thread(ask)

    return is_ready
