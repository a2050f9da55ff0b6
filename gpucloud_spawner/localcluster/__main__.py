"""The command line of the local cluster: `python -m gpucloud_spawner.localcluster up --data DIR`.

`up` runs all parts in one process, each with its own client through the kubeconfig; the other
commands run one part, so that any of them can be swapped for the real one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import IO

from .apiserver import APIServer
from .apiserver.pki import write_private
from .client import RETRYABLE, ApiError, KubeClient
from .gpus import FAKE_PRODUCT, NodeGPUs, plan_nodes
from .informer import Informer
from .kubelet.images import DEFAULT_PATTERNS
from .kubelet.kubelet import Kubelets, Settings
from .kubelet.node import NodeConfig
from .networks import Networks
from .scheduler import Scheduler

log = logging.getLogger(__name__)
WARNING = (
    "warning: the local cluster isolates nobody: every pod is a process of yours and can read "
    "whatever you can. It is for one machine: evaluation, development, tests."
)
READY_SECONDS = 60
PR_SET_PDEATHSIG = 1
NOT_READY = "node.kubernetes.io/not-ready"
# Fake GPUs come with fake nodes: profiles made for real servers should fit on a laptop too.
FAKE_CPU, FAKE_MEMORY = "16", "64Gi"


class UsageError(Exception):
    """Wrong arguments or surroundings; the message is for the person at the terminal."""


def parser() -> argparse.ArgumentParser:
    name = "python -m gpucloud_spawner.localcluster"
    top = argparse.ArgumentParser(prog=name, description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run the whole cluster in the foreground")
    up.add_argument("--data", type=Path, required=True, help="directory of its state")
    up.add_argument("--port", type=int, default=0, help="of the API server; 0: as last time")
    up.add_argument("--cpu", default="", help="cpu of each node (default: 16 on fake nodes)")
    up.add_argument("--memory", default="", help="of each node (default: 64Gi on fake nodes)")
    _add_kubelet_options(up)
    _add_controller_options(up)
    apiserver = commands.add_parser("apiserver", help="run the API server alone")
    apiserver.add_argument("--data", type=Path, required=True, help="directory of its state")
    apiserver.add_argument("--host", default="127.0.0.1", help="address to listen on")
    apiserver.add_argument("--port", type=int, default=0, help="0: as last time, or a free one")
    for name in ("controllers", "scheduler"):
        part = commands.add_parser(name, help=f"run the {name} alone")
        part.add_argument("--kubeconfig", required=True)
        if name == "controllers":
            _add_controller_options(part)
    kubelet = commands.add_parser("kubelet", help="run one node")
    kubelet.add_argument("--kubeconfig", required=True)
    kubelet.add_argument("--node", required=True, help="name of the node")
    kubelet.add_argument("--data", type=Path, required=True, help="directory of its state")
    kubelet.add_argument("--pod-cidr", default="", help="of its pods; default: a free network")
    kubelet.add_argument(
        "--client-ca-file",
        type=Path,
        help="CA of the API server's client certificate, for `kubectl logs` from a real API server",
    )
    kubelet.add_argument("--gpus", type=int, default=0, help="number of fake GPUs")
    kubelet.add_argument("--cpu", default="", help="default: the machine's")
    kubelet.add_argument("--memory", default="", help="default: the machine's")
    _add_kubelet_options(kubelet)
    for command in commands.choices.values():
        command.add_argument("--log-level", default="info")
        command.add_argument(
            "--exit-with-parent", action="store_true", help="end when the starting process ends"
        )
    return top


def _add_kubelet_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="PATTERN",
        help=f"a further image name that is known (besides {', '.join(DEFAULT_PATTERNS)})",
    )
    command.add_argument(
        "--extended-resource",
        action="append",
        default=[],
        metavar="NAME=COUNT",
        help="a further countable resource of each node, as example.com/fpga=2",
    )
    command.add_argument(
        "--allow-host-path", action="store_true", help="allow hostPath volumes in pods"
    )


def _add_controller_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--job-backoff",
        type=_positive,
        default=10.0,
        metavar="SECONDS",
        help="wait of a Job before it replaces its first failed pod, doubled after each further "
        "failure (default: %(default)s, as Kubernetes)",
    )


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _resources(texts: list[str]) -> dict[str, int]:
    result = {}
    for text in texts:
        name, _, count = text.partition("=")
        if "/" not in name or not count.isdecimal():
            raise UsageError(f"--extended-resource must be like example.com/fpga=2, not {text!r}")
        result[name] = int(count)
    return result


def _settings(args: argparse.Namespace, data: Path) -> Settings:
    return Settings(
        data=data,
        images=(*DEFAULT_PATTERNS, *args.image),
        allow_host_path=args.allow_host_path,
        client_ca=getattr(args, "client_ca_file", None),
    )


def _nodes(
    args: argparse.Namespace, planned: Sequence[NodeGPUs], cidrs: Sequence[str]
) -> list[NodeConfig]:
    resources = _resources(args.extended_resource)
    nodes = []
    for number, (gpus, cidr) in enumerate(zip(planned, cidrs, strict=True)):
        fake = gpus.product == FAKE_PRODUCT
        nodes.append(
            NodeConfig(
                name=f"node-{number}",
                pod_cidr=cidr,
                gpus=gpus,
                cpu=args.cpu or (FAKE_CPU if fake else ""),
                memory=args.memory or (FAKE_MEMORY if fake else ""),
                resources=resources,
            )
        )
    return nodes


def _lock(data: Path) -> IO[str]:
    """Holds the data directory for this process; the kernel lets go when it ends, however."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (data / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise UsageError(
            f"{data} is in use by another local cluster (process {owner}); "
            "end that one or choose another --data directory"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _controllers(
    client: KubeClient, args: argparse.Namespace
) -> AbstractAsyncContextManager[object]:
    # Imported late: a kubelet or a scheduler that runs alone does not need them.
    from .controllers import Controllers, Periods

    return Controllers(client, Periods(job_backoff=args.job_backoff))


async def up(args: argparse.Namespace) -> None:
    """All parts, in the order in which they need each other, ended in the opposite order."""
    data: Path = args.data.resolve()
    planned = plan_nodes(os.environ)
    _resources(args.extended_resource)  # complain before anything is started
    with _lock(data), Networks(data, len(planned)) as networks:
        nodes = _nodes(args, planned, networks.cidrs)
        # Whoever waits for this file gets the kubeconfig of a cluster that is ready.
        public = data / "kubeconfig"
        public.unlink(missing_ok=True)
        print(WARNING, flush=True)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(APIServer(data / "apiserver", port=args.port))
            clients = [
                await stack.enter_async_context(
                    KubeClient.from_kubeconfig(str(server.kubeconfig), f"gpucloud-{part}")
                )
                for part in ("controllers", "scheduler", "kubelet")
            ]
            await stack.enter_async_context(_controllers(clients[0], args))
            await stack.enter_async_context(Scheduler(clients[1]))
            kubelets = Kubelets(clients[2], nodes, _settings(args, data / "kubelet"))
            await stack.enter_async_context(kubelets)
            await _nodes_ready(clients[2], {node.name for node in nodes})
            write_private(public, server.kubeconfig.read_bytes())
            print(f"local cluster is ready: KUBECONFIG={public}", flush=True)
            await _for_ever()


async def _nodes_ready(client: KubeClient, names: set[str]) -> None:
    changed = asyncio.Event()
    async with (
        asyncio.timeout(READY_SECONDS),
        Informer(client, "nodes", handler=lambda old, new: changed.set()) as informer,
    ):
        while not all(_is_ready(informer.store.get(name)) for name in names):
            changed.clear()
            await changed.wait()


def _is_ready(node: dict[str, object] | None) -> bool:
    if node is None:
        return False
    spec: dict[str, list[dict[str, str]]] = node.get("spec") or {}  # type: ignore[assignment]
    status: dict[str, list[dict[str, str]]] = node["status"]  # type: ignore[assignment]
    taints = {taint["key"] for taint in spec.get("taints") or []}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or []}
    return conditions.get("Ready") == "True" and NOT_READY not in taints


async def apiserver(args: argparse.Namespace) -> None:
    with _lock(args.data):
        async with APIServer(args.data, args.host, args.port) as server:
            print(f"API server is ready: KUBECONFIG={server.kubeconfig}", flush=True)
            await _for_ever()


async def controllers(args: argparse.Namespace) -> None:
    async with (
        KubeClient.from_kubeconfig(args.kubeconfig) as client,
        _controllers(client, args),
    ):
        print("controllers are running", flush=True)
        await _for_ever()


async def scheduler(args: argparse.Namespace) -> None:
    async with KubeClient.from_kubeconfig(args.kubeconfig) as client, Scheduler(client):
        print("scheduler is running", flush=True)
        await _for_ever()


async def kubelet(args: argparse.Namespace) -> None:
    data: Path = args.data.resolve()
    resources = _resources(args.extended_resource)
    with _lock(data), contextlib.ExitStack() as held:
        cidr = args.pod_cidr or held.enter_context(Networks(data, 1)).cidrs[0]
        node = NodeConfig(
            name=args.node,
            pod_cidr=cidr,
            gpus=NodeGPUs(tuple(str(index) for index in range(args.gpus))),
            cpu=args.cpu,
            memory=args.memory,
            resources=resources,
        )
        print(WARNING, flush=True)
        async with (
            KubeClient.from_kubeconfig(args.kubeconfig) as client,
            Kubelets(client, [node], _settings(args, data)),
        ):
            print(f"kubelet is running: node {args.node}", flush=True)
            await _for_ever()


COMMANDS = {
    "up": up,
    "apiserver": apiserver,
    "controllers": controllers,
    "scheduler": scheduler,
    "kubelet": kubelet,
}


async def _run(args: argparse.Namespace) -> None:
    """Runs the command until a signal, which ends it in order; a second one cuts that short."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(COMMANDS[args.command](args))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    await asyncio.wait({work})
    if not work.cancelled():
        work.result()


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _exit_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we asked
        raise UsageError("the starting process has ended")


def main() -> int:
    args = parser().parse_args()
    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        if args.exit_with_parent:
            _exit_with_parent()
        asyncio.run(_run(args))
    except (UsageError, ValueError, RuntimeError) as error:
        print(f"local cluster: {error}", file=sys.stderr, flush=True)
        return 1
    except (ApiError, *RETRYABLE) as error:
        log.debug("not started", exc_info=True)
        print(f"local cluster: {error or type(error).__name__}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
