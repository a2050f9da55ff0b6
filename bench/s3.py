"""The S3 drive of the file browser beside boto3, rclone and s3contents: listings, transfers.

Everything in one run on one embedded server. "others" are small requests made to the same Jupyter
server meanwhile: how long they take shows whether its event loop is held up. Scale it with
GPUCLOUD_BENCH_S3_MIB (1024) and GPUCLOUD_BENCH_S3_ENTRIES (100,1000,10000).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.report import report
from tests.labext.contents import servers

MIB = 2**20
CHUNK = MIB  # JupyterLab's
S3CONTENTS = ["s3contents==0.11.2", "jupyter-server==2.21.1", "tornado<6.6"]

# Runs in a virtual environment of its own, so it imports nothing of ours.
OLD_LISTING = """
import json, logging, sys, time
from s3contents import S3ContentsManager
endpoint, access, secret, bucket, path = sys.argv[1:]
manager = S3ContentsManager(
    endpoint_url=endpoint, access_key_id=access, secret_access_key=secret, bucket=bucket)
manager.log.setLevel(logging.ERROR)
times = []
for _ in range(2):
    started = time.perf_counter()
    found = len(manager.get(path, content=True, type="directory")["content"])
    times.append(time.perf_counter() - started)
print(json.dumps({"seconds": min(times), "found": found}))
"""


# A process of its own: in this one it would wait for the work of the benchmark.
OTHERS = """
import json, select, sys, time
import httpx
url, token = sys.argv[1:]
times = []
with httpx.Client(base_url=url, headers={"Authorization": f"token {token}"}, timeout=60) as http:
    http.get("/api/kernels").raise_for_status()
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        started = time.perf_counter()
        http.get("/api/kernels").raise_for_status()
        times.append(time.perf_counter() - started)
print(json.dumps(times))
"""


class Others:
    """Somebody else's small requests, all the time."""

    def __init__(self, api: servers.Jupyter) -> None:
        self._command = [sys.executable, "-c", OTHERS, api.url, servers.TOKEN]
        self.times: list[float] = []

    @contextmanager
    def asking(self) -> Iterator[None]:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(self._command, **pipes) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == "ready\n"
            try:
                yield
            finally:
                self.times = json.loads(asking.communicate()[0])

    def row(self) -> dict[str, Any]:
        times = sorted(self.times)
        return {
            "others p50 ms": 1000 * statistics.median(times),
            "others p99 ms": 1000 * times[int(len(times) * 0.99)],
            "others max ms": 1000 * times[-1],
            "requests": len(times),
        }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpucloud-bench-") as name:
        folder = Path(name)
        with (
            servers.running(servers.rclone_store(folder / "s3")) as store,
            servers.jupyter(folder / "jupyter", store.environment()) as api,
        ):
            bench(folder, store, api)


def bench(folder: Path, store: servers.Store, api: servers.Jupyter) -> None:
    others = Others(api)
    with others.asking():
        time.sleep(3)
    rows: list[dict[str, Any]] = [{"what": "nothing", **others.row()}]
    old = old_python(folder)
    for count in sizes():
        rows += listings(store, api, others, count, old)
    mib = int(os.environ.get("GPUCLOUD_BENCH_S3_MIB") or 1024)
    rows += transfers(folder, store, api, others, mib)
    facts: dict[str, Any] = {"file_mib": mib, "cores": os.cpu_count()}
    if not isinstance(old, Path):
        facts["s3contents"] = f"left out: {old}"
    report("s3", rows, **facts)


def sizes() -> list[int]:
    given = os.environ.get("GPUCLOUD_BENCH_S3_ENTRIES") or "100,1000,10000"
    return [int(size) for size in given.split(",")]


def best(action: Callable[[], Any], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return min(taken)


def listings(
    store: servers.Store, api: servers.Jupyter, others: Others, count: int, old: Path | str
) -> list[dict[str, Any]]:
    client, prefix = store.client(), f"list{count}"

    def put(number: int) -> None:
        client.put_object(Bucket=servers.BUCKET, Key=f"{prefix}/{number:06}.txt", Body=b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(count)))

    def plain() -> None:
        pages = client.get_paginator("list_objects_v2")
        query = {"Bucket": servers.BUCKET, "Prefix": f"{prefix}/", "Delimiter": "/"}
        found = sum(len(page.get("Contents", ())) for page in pages.paginate(**query))
        assert found == count

    def ours() -> None:
        assert len(api.get(f"s3/{prefix}")["content"]) == count

    what = f"list {count}"
    ours()
    raw = best(plain)
    alone = best(ours)
    with others.asking():
        best(ours, 5 if count >= 1000 else 40)
    rows = [
        {"what": what, "by": "boto3, raw", "seconds": raw, "x raw": 1.0},
        {"what": what, "by": "ours, by HTTP", "seconds": alone, "x raw": alone / raw}
        | others.row(),
    ]
    if isinstance(old, Path):
        arguments = [store.endpoint, *store.keys, servers.BUCKET, prefix]
        done = subprocess.run(
            [old, "-c", OLD_LISTING, *arguments], capture_output=True, text=True, check=True
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["found"] == count
        seconds = answer["seconds"]
        rows.append({"what": what, "by": "s3contents", "seconds": seconds, "x raw": seconds / raw})
    return rows


def old_python(folder: Path) -> Path | str:
    """The Python of an environment with s3contents, or why there is none."""
    given = os.environ.get("GPUCLOUD_BENCH_S3CONTENTS")
    if given:
        return Path(given)
    place = folder / "s3contents"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *S3CONTENTS], capture_output=True, text=True
    )
    return python if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:200]


def transfers(
    folder: Path, store: servers.Store, api: servers.Jupyter, others: Others, mib: int
) -> list[dict[str, Any]]:
    source = folder / "source.bin"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    rows = []

    def measured(what: str, by: str, action: Callable[[], None], shared: bool) -> None:
        started = time.perf_counter()
        if shared:
            with others.asking():
                action()
        else:
            action()
        taken = time.perf_counter() - started
        row = {"what": what, "by": by, "seconds": taken, "MiB/s": mib / taken}
        rows.append(row | (others.row() if shared else {}))

    to = f"up {mib} MiB"
    measured(to, "rclone copyto", lambda: rclone(store, source, "remote:ada/theirs.bin"), False)
    measured(to, "ours, move from home", lambda: from_home(api, source), True)
    measured(to, "ours, browser's chunks", lambda: in_chunks(api, source), True)
    down = f"down {mib} MiB"
    target = folder / "down.bin"
    measured(down, "rclone copyto", lambda: rclone(store, "remote:ada/theirs.bin", target), False)
    measured(down, "ours, /files/", lambda: download(api, mib), True)
    measured(down, "ours, copy to home", lambda: to_home(api), True)
    assert (api.home / "chunks.bin").stat().st_size == mib * MIB
    return rows


def rclone(store: servers.Store, source: Path | str, target: Path | str) -> None:
    binary = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert binary
    settings = {
        "TYPE": "s3",
        "PROVIDER": "Rclone",
        "ENDPOINT": store.endpoint,
        "ACCESS_KEY_ID": store.keys[0],
        "SECRET_ACCESS_KEY": store.keys[1],
    }
    env = {f"RCLONE_CONFIG_REMOTE_{name}": value for name, value in settings.items()}
    env |= {**os.environ, "RCLONE_CONFIG": os.devnull}
    subprocess.run([binary, "copyto", str(source), str(target)], check=True, env=env)


def in_chunks(api: servers.Jupyter, source: Path) -> None:
    size, sent, number = source.stat().st_size, 0, 0
    with source.open("rb") as file:
        while piece := file.read(CHUNK):
            sent += len(piece)
            number = -1 if sent == size else number + 1
            content = base64.b64encode(piece).decode()
            api.put("s3/chunks.bin", content, format="base64", chunk=number)


def from_home(api: servers.Jupyter, source: Path) -> None:
    (api.home / "moved.bin").hardlink_to(source)
    api.rename("moved.bin", "s3/moved.bin")


def to_home(api: servers.Jupyter) -> None:
    api.copy("s3/chunks.bin", "")


def download(api: servers.Jupyter, mib: int) -> None:
    seen = 0
    with api.http.stream("GET", "/files/s3/chunks.bin") as answer:
        for block in answer.iter_raw(MIB):
            seen += len(block)
    assert seen == mib * MIB


if __name__ == "__main__":
    main()
