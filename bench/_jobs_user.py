"""What a user waits for: from `run` to the first training step, and the upload of the code.

The same script with the same TensorFlow is started as a job and by hand, as two processes with
TF_CONFIG, in turns; what is told is the difference. Both on this machine, with all that else runs
on it.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpucloud_labext.jobs.capture import capture
from gpucloud_labext.jobs.manifest import Manifest
from gpucloud_labext.jobs.store import Store
from gpucloud_labext.jobs.upload import upload
from tests.e2e.cloud import Cloud, User, wait_for
from tests.labext.contents import servers
from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
FIRST = re.compile(r"first step at ([0-9.]+)")
OVER = ("succeeded", "failed", "stopped")
SCRIPT = """
import time
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    weight = tf.Variable(0.0)
@tf.function
def step():
    def one():
        context = tf.distribute.get_replica_context()
        weight.assign_add(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0)))
    strategy.run(one)
step()
print("first step at", time.time(), flush=True)
"""
LAUNCH = """
import os, time
os.makedirs("bench", exist_ok=True)
os.chdir("bench")
open("first.py", "w").write({script!r})
import gpucloud_labext
began = time.time()
job = gpucloud_labext.run("first.py", workers=2, gpus=0)
print(began, job.id)
"""


def launches(rounds: int = 3) -> list[dict[str, Any]]:
    """Seconds to the first step, as a job and by hand."""
    with tempfile.TemporaryDirectory(prefix="gpucloud-bench-") as name:
        cloud = Cloud(Path(name) / "cloud", ROOT / "hub_config" / "jupyterhub_config.py").start()
        try:
            user = cloud.user()
            user.start("work", profile="tensorflow", gpus="0")
            _as_job(user)  # the code is there, and every file of TensorFlow was read once
            pairs = [(_as_job(user), _by_hand(Path(name))) for _ in range(rounds)]
        finally:
            cloud.stop()
    jobs, hands = zip(*pairs, strict=True)
    differences = [job - hand for job, hand in pairs]
    return [
        {"what": "run to first step", "by": "a job", "seconds": statistics.median(jobs)},
        {"what": "run to first step", "by": "by hand", "seconds": statistics.median(hands)},
        {"what": "run to first step", "by": "more", "seconds": statistics.median(differences)},
    ]


def _as_job(user: User) -> float:
    began, job = user.run_code(LAUNCH.format(script=SCRIPT), "work").split()[-2:]
    url = f"api/jobs/{job}"
    wait_for(lambda: user.lab("GET", f"gpucloud/{url}", "work").json()["state"] in OVER, job)
    log = user.lab("GET", f"gpucloud/{url}/logs", "work").text
    steps = [float(text) for text in FIRST.findall(log)]
    assert len(steps) == 2, log
    return max(steps) - float(began)


def _by_hand(folder: Path) -> float:
    script = folder / "first.py"
    script.write_text(SCRIPT)
    first = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"]}
    began = time.time()
    running = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        running.append(
            subprocess.Popen(
                [sys.executable, script],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    said = "".join(process.communicate(timeout=120)[0] for process in running)
    steps = [float(text) for text in FIRST.findall(said)]
    assert len(steps) == 2, said
    return max(steps) - began


def uploads(files: int = 1000) -> list[dict[str, Any]]:
    """Seconds for ``files`` small files the first time, unchanged, and with one changed."""
    with tempfile.TemporaryDirectory(prefix="gpucloud-bench-") as name:
        folder, tree = Path(name), Path(name) / "tree"
        for number in range(files):
            path = tree / f"d{number % 20}" / f"f{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"value = {number}\n" * 50)
        with servers.running(servers.rclone_store(folder / "s3")) as server:
            os.environ |= server.environment()
            store = Store.of_environment()
            rows = [_upload(store, tree, f"{files} files, first time")]
            rows.append(_upload(store, tree, f"{files} files, unchanged"))
            (tree / "d0" / "f0.py").write_text("value = 'new'\n")
            rows.append(_upload(store, tree, f"{files} files, one changed"))
    return rows


def _upload(store: Store, tree: Path, what: str) -> dict[str, Any]:
    began = time.perf_counter()
    captured = capture(tree)
    sent = upload(store, captured, Manifest(captured.files))
    return {"what": what, "seconds": time.perf_counter() - began, "sent": sent.sent_files}
