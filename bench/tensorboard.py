"""TensorBoard through our proxy, through jupyter-server-proxy and without any; and a run on S3.

All ways lead to the same TensorBoard, in turns, in one run. A big run is read from the embedded S3
server, with every byte of it counted; its size is GPUCLOUD_BENCH_TENSORBOARD_MIB (64).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from bench.report import report
from tests.labext.contents import servers
from tests.labext.tensorboard import runs
from tests.labext.tensorboard.conftest import Server
from tests.labext.tensorboard.counting import CountingProxy

ROUNDS = 5
REQUESTS = 300  # of each way in each round
AT_ONCE = 8
CHART = "data/plugin/scalars/scalars?run=one%2Ftrain&tag=loss%2Ftrain"
SERVE = "gpucloud_labext.tensorboard.serve"


def main() -> None:
    mib = int(os.environ.get("GPUCLOUD_BENCH_TENSORBOARD_MIB") or 64)
    with tempfile.TemporaryDirectory(prefix="gpucloud-bench-") as name:
        folder = Path(name)
        with (
            servers.running(servers.rclone_store(folder / "s3")) as store,
            CountingProxy(store.port) as counted,
        ):
            environment = {**store.environment(), "AWS_ENDPOINT_URL_S3": counted.endpoint}
            server = BenchServer(folder / "jupyter", environment, folder / "plain.sock")
            with closing(server):
                runs.everything(server.home / "runs" / "one")
                server.start()
                rows, facts = proxies(server)
                rows += big_run(server, store, counted, folder, mib)
    report("tensorboard", rows, cores=os.cpu_count(), **facts)


class BenchServer(Server):
    """Has jupyter-server-proxy's own way to the same socket, at /plain/."""

    def __init__(self, folder: Path, environment: dict[str, str], socket: Path) -> None:
        super().__init__(folder, environment, s3_poll_seconds=1.0)
        self.socket = socket
        config = folder / "jupyter" / "jupyter_server_config.py"
        plain = {"command": [], "unix_socket": str(socket), "launcher_entry": {"enabled": False}}
        with config.open("a") as file:
            file.write(f"c.ServerProxy.servers = {{'plain': {plain!r}}}\n")
            # a line in the log for each request would be measured, too
            file.write("c.Application.log_level = 'WARN'\n")

    def link(self) -> None:
        """Let /plain/ lead to the TensorBoard that runs."""
        [words] = [p.cmdline() for p in self.processes() if SERVE in p.cmdline()]
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to(words[words.index("--socket") + 1])


# --- the ways to one TensorBoard ---


def proxies(server: BenchServer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    starts = []
    for _ in range(3):
        server.stop_all()
        started = time.perf_counter()
        board = open_until_drawn(server, "runs", "one/train", "loss/train")
        starts.append(time.perf_counter() - started)
    server.link()
    ways = {
        "direct": (str(server.socket), "http://localhost/"),
        "jupyter-server-proxy": (None, f"{server.url}/plain/"),
        "ours": (None, server.url + board["url"]),
    }
    times = asyncio.run(in_turns(ways))
    rates = {way: [REQUESTS / total for total, _ in rounds] for way, rounds in times.items()}
    base = statistics.median(rates["jupyter-server-proxy"])
    rows = [
        {
            "what": "chart data",
            "way": way,
            "requests/s": statistics.median(rates[way]),
            "x jupyter-server-proxy": statistics.median(rates[way]) / base,
            "p50 ms": 1000 * statistics.median(single(rounds)),
            "p99 ms": 1000 * sorted(single(rounds))[int(0.99 * len(single(rounds)))],
        }
        for way, rounds in times.items()
    ]
    [model] = server.listed()
    return rows, {
        "start to first chart, seconds": statistics.median(starts),
        "memory of one TensorBoard, MiB": model["memory_bytes"] / 2**20,
    }


def open_until_drawn(server: Server, logdir: str, run: str, tag: str = "loss") -> dict[str, Any]:
    board = server.open(logdir)
    wait(lambda: server.steps(board, run, tag))
    return board


Round = tuple[float, list[float]]


def single(rounds: list[Round]) -> list[float]:
    return [taken for _, all_taken in rounds for taken in all_taken]


async def in_turns(ways: dict[str, tuple[str | None, str]]) -> dict[str, list[Round]]:
    times: dict[str, list[Round]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, (socket, url) in ways.items():
            taken = await ask(socket, url + CHART)
            if number:  # the first round warms up
                times[way].append(taken)
    return times


async def ask(socket: str | None, url: str) -> Round:
    """Seconds of all requests together, and of each."""
    connector = aiohttp.UnixConnector(socket) if socket else aiohttp.TCPConnector()
    headers = {"Authorization": f"token {servers.TOKEN}"}
    taken: list[float] = []

    async def some(session: aiohttp.ClientSession, count: int) -> None:
        for _ in range(count):
            started = time.perf_counter()
            async with session.get(url) as answer:
                data = await answer.json()
            assert len(data) == runs.STEPS
            taken.append(time.perf_counter() - started)

    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        started = time.perf_counter()
        await asyncio.gather(*(some(session, REQUESTS // AT_ONCE) for _ in range(AT_ONCE)))
        # as many as were really made
        return (time.perf_counter() - started) * REQUESTS / len(taken), taken


# --- a big run on S3 ---


def big_run(
    server: Server, store: servers.Store, counted: CountingProxy, folder: Path, mib: int
) -> list[dict[str, Any]]:
    local = folder / "big"
    runs.blobs(local / "pictures", mib)
    runs.scalars(local / "small", 10)
    upload(store, local)
    size = sum(file.stat().st_size for file in local.rglob("*") if file.is_file())
    server.stop_all()
    rows = []

    def measured(
        what: str, action: Callable[[], None], before: Callable[[], None] = lambda: None
    ) -> None:
        """Bytes since ``before``: a look at S3 may come while it still goes on."""
        counted.reset()
        before()
        started = time.perf_counter()
        action()
        seconds = time.perf_counter() - started
        rows.append(
            {
                "what": what,
                "way": f"s3://, {size / 2**20:.0f} MiB",
                "seconds": seconds,
                "downloaded MiB": counted.downloaded / 2**20,
            }
        )

    board: dict[str, Any] = {}

    def first_chart() -> None:
        board.update(open_until_drawn(server, f"s3://{servers.BUCKET}/big", "small"))

    def whole_chart() -> None:
        last = mib * 1024 // 256 - 1
        wait(lambda: server.steps(board, "pictures")[-1:] == [last])

    measured("first chart", first_chart)
    measured("then all of it", whole_chart)
    for number in range(3):
        runs.scalars(local / f"new-{number}", 3)
        grown = next((local / "pictures").iterdir())
        with grown.open("ab") as file:
            file.write(next((local / f"new-{number}").iterdir()).read_bytes())
        added = partial(server.steps, board, f"new-{number}")
        what = f"reload {number + 1}: one file grew, one is new"
        measured(what, partial(wait, added), partial(upload, store, local))
    return rows


def upload(store: servers.Store, local: Path) -> None:
    """What changed, as a training's mirror does."""
    client = store.client()

    def put(file: Path) -> None:
        with file.open("rb") as body:
            key = f"big/{file.relative_to(local)}"
            client.put_object(Bucket=servers.BUCKET, Key=key, Body=body)

    known = {
        entry["Key"]: entry["Size"]
        for entry in client.list_objects_v2(Bucket=servers.BUCKET, Prefix="big/").get(
            "Contents", ()
        )
    }
    files = [f for f in local.rglob("*") if f.is_file()]
    changed = [f for f in files if known.get(f"big/{f.relative_to(local)}") != f.stat().st_size]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, changed))


def wait(condition: Callable[[], Any]) -> None:
    servers.wait_for(condition, "chart", 600)
