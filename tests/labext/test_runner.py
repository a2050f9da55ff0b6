"""The runner as replicas see it: real processes on one machine, a real S3 server, no Kubernetes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gpucloud_labext.jobs.store import Store
from tests.e2e.forwarder import Forwarder
from tests.labext.contents.servers import wait_for
from tests.labext.jobs.conftest import *  # noqa: F403 (its fixtures)
from tests.labext.jobs.replicas import Job, Replica
from tests.labext.jobs.wheels import wheel

Make = Callable[..., Job]

SHOW = """
import json, os
names = ["TF_CONFIG", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK",
         "GPUCLOUD_RESTART", "GPUCLOUD_CHECKPOINT_URI"]
print(json.dumps({name: os.environ.get(name) for name in names}))
"""


def shown(job: Job, label: str) -> dict[str, str]:
    lines = [line for line in job.log(label).splitlines() if line.startswith("{")]
    value: dict[str, str] = json.loads(lines[-1])
    return value


def test_a_single_replica_runs_the_script_and_leaves_all_in_the_bucket(make_job: Make) -> None:
    script = """
        import os, pathlib, sys
        from helper import word
        print(word, os.getcwd().endswith("code"), sys.argv[1:])
        print("to stderr", file=sys.stderr)
        print("10%\\r50%\\r100%")
        pathlib.Path(os.environ["GPUCLOUD_CHECKPOINT_DIR"], "model.bin").write_bytes(b"weights")
        board = pathlib.Path(os.environ["GPUCLOUD_LOG_DIR"], "train")
        board.mkdir()
        (board / "events.1").write_text("curve")
    """
    files = {"helper.py": "word = 'hello'"}
    job = make_job(textwrap.dedent(script), files=files, args=["--x", "1"])
    assert job["worker-0"].wait() == 0
    log = job.log("worker-0").splitlines()
    assert "hello True ['--x', '1']" in log and "to stderr" in log and "100%" in log
    assert [line for line in job["worker-0"].output().splitlines()] == log
    assert job.keys("checkpoints/") == ["model.bin"]
    assert job.keys("tensorboard/") == ["worker-0/train/events.1"]
    assert job["worker-0"].last_words["reason"] == "succeeded"


def test_a_single_replica_gets_no_cluster(make_job: Make) -> None:
    job = make_job(SHOW)
    assert job["worker-0"].wait() == 0
    seen = shown(job, "worker-0")
    assert seen["TF_CONFIG"] is None
    assert (seen["RANK"], seen["WORLD_SIZE"], seen["GPUCLOUD_RESTART"]) == ("0", "1", "0")
    assert seen["GPUCLOUD_CHECKPOINT_URI"] == f"s3://ada/{job.prefix}checkpoints/"


def test_every_replica_gets_its_place_in_the_cluster(make_job: Make) -> None:
    # servers wait, as TensorFlow's do; the chief's end is theirs
    script = SHOW + textwrap.dedent("""
        import pathlib, sys, time
        sys.stdout.flush()
        if os.environ["GPUCLOUD_ROLE"] in ("worker", "ps"):
            time.sleep(1000)
        while not (pathlib.Path(os.environ["HOME"]).parent / "end").exists():
            time.sleep(0.05)
    """)
    roles = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}
    job = make_job(script, roles=roles)
    for replica in job.replicas.values():
        replica.said("WORLD_SIZE")
    (job.folder / "end").touch()
    assert [job[label].wait() for label in job.replicas] == [0, 0, 0, 0, 0]
    cluster = {
        role: [f"127.0.0.1:{job.ports[f'{role}-{n}']}" for n in range(count)]
        for role, count in roles.items()
        if role != "evaluator"
    }
    for label in job.replicas:
        role, _, index = label.rpartition("-")
        seen = shown(job, label)
        config = json.loads(seen["TF_CONFIG"])
        assert config == {"cluster": cluster, "task": {"type": role, "index": int(index)}}
        assert seen["WORLD_SIZE"] == "3"
        assert seen["MASTER_ADDR"] == "127.0.0.1"
        assert seen["MASTER_PORT"] == str(job.ports["chief-0"])
    ranks = [shown(job, label)["RANK"] for label in ("chief-0", "worker-0", "worker-1", "ps-0")]
    assert ranks == ["0", "1", "2", None]


def test_nobody_trains_before_all_are_there(make_job: Make) -> None:
    job = make_job("print('training')", start=False, roles={"worker": 3})
    job["worker-0"].start()
    job["worker-2"].start()
    job["worker-0"].said("waiting for worker-1")
    assert "training" not in job["worker-0"].output()
    assert "training" not in job["worker-2"].output()
    job["worker-1"].start()
    assert [job[label].wait() for label in job.replicas] == [0, 0, 0]


def test_an_incomplete_gang_gives_up(make_job: Make) -> None:
    job = make_job("print('training')", start=False, roles={"worker": 2}, gang_seconds=2)
    job["worker-0"].start()
    assert job["worker-0"].wait() == 82
    words = job["worker-0"].last_words
    assert words["reason"] == "gang_incomplete" and "worker-1 did not come" in words["message"]
    assert "worker-1 did not come" in job.log("worker-0")


def test_a_member_without_a_lead_gives_up(make_job: Make) -> None:
    job = make_job("print('training')", start=False, roles={"worker": 2}, gang_seconds=2)
    job["worker-1"].start()
    assert job["worker-1"].wait() == 82
    assert "worker-0 did not come" in job["worker-1"].last_words["message"]


STEPS = """
import os, pathlib, time
folder = pathlib.Path(os.environ["GPUCLOUD_CHECKPOINT_DIR"])
index = folder / "checkpoint"
first = int(index.read_text()) + 1 if index.exists() else 0
label = os.environ["GPUCLOUD_REPLICA"]
restart = int(os.environ["GPUCLOUD_RESTART"])
print("from", first, "restart", restart, flush=True)
if restart:  # nobody writes a newer checkpoint before all have read this one
    place = pathlib.Path(os.environ["HOME"]).parent
    (place / f"{{label}} has read {{restart}}").touch()
    while len([*place.glob(f"* has read {{restart}}")]) < 2:
        time.sleep(0.05)
# the first time it goes on until somebody is lost
for step in range(first, first + 5 if restart else 10_000):
    time.sleep(0.2)
    if label == "{writer}":
        (folder / f"ckpt-{{step}}.data-00000-of-00001").write_text(str(step))
        (folder / f"ckpt-{{step}}.index").write_text(str(step))
        fresh = folder / "checkpoint.tmp"
        fresh.write_text(str(step))
        fresh.rename(index)
    print("step", step, flush=True)
"""


def train(make_job: Make) -> Job:
    """A job whose replicas have all begun, so that one of them can be lost; the bucket knows."""
    job = make_job(STEPS.format(writer="worker-0"), roles={"worker": 2})
    wait_for(lambda: "checkpoint" in job.keys("checkpoints/"), "a checkpoint")
    for label in job.replicas:
        wait_for(lambda label=label: "from 0" in job.log(label), f"the first line of {label}")
    return job


def test_a_lost_worker_comes_back_and_all_go_on_from_the_checkpoint(make_job: Make) -> None:
    job = train(make_job)
    job["worker-1"].kill()
    assert job["worker-1"].wait() == -signal.SIGKILL
    job["worker-1"].start()
    assert job["worker-0"].wait() == 0
    assert job["worker-1"].wait() == 0
    starts = [line for line in job.log("worker-1").splitlines() if line.startswith("from")]
    again = [line for line in job.log("worker-0").splitlines() if line.startswith("from")]
    assert starts[0] == again[0] == "from 0 restart 0"
    # both from the same step, a later one
    assert starts[1:] == again[1:] and again[1].endswith("restart 1")
    assert int(again[1].split()[1]) > 0


def test_the_lead_is_lost_and_comes_back(make_job: Make) -> None:
    job = train(make_job)
    job["worker-0"].kill()
    assert job["worker-0"].wait() == -signal.SIGKILL
    job["worker-0"].start()
    assert job["worker-0"].wait() == 0
    assert job["worker-1"].wait() == 0
    second = [line for line in job.log("worker-0").splitlines() if line.startswith("from")][1]
    assert int(second.split()[1]) > 0
    assert second in job.log("worker-1")


def test_a_lost_server_comes_back_alone(make_job: Make) -> None:
    script = """
        import os, pathlib, time
        print("started", flush=True)
        end = pathlib.Path(os.environ["HOME"]).parent / "end"
        while os.environ["GPUCLOUD_ROLE"] != "chief" or not end.exists():
            time.sleep(0.05)
    """
    job = make_job(textwrap.dedent(script), roles={"chief": 1, "worker": 2, "ps": 1})
    for replica in job.replicas.values():
        replica.said("started")
    job["worker-1"].kill()
    job["worker-1"].wait()
    job["worker-1"].start().said("started")
    assert job["chief-0"].output().count("started") == 1
    # a parameter server had variables: without it, all begin again
    job["ps-0"].kill()
    job["ps-0"].wait()
    job["ps-0"].start()
    wait_for(lambda: job["chief-0"].output().count("started") == 2, "a new start of the chief")
    (job.folder / "end").touch()
    assert [job[label].wait() for label in job.replicas] == [0, 0, 0, 0]


def test_one_that_was_given_up_and_is_back_has_no_place(make_job: Make) -> None:
    script = """
        import os, pathlib, time
        print("started", flush=True)
        while not (pathlib.Path(os.environ["HOME"]).parent / "end").exists():
            time.sleep(0.05)
    """
    job = make_job(textwrap.dedent(script), roles={"worker": 2})
    for replica in job.replicas.values():
        replica.said("started")
    # its node does not answer, so it is replaced; then the node is back
    lost = job["worker-1"]
    lost.kill(signal.SIGSTOP)
    job.replicas["worker-1"] = Replica(job, "worker-1", starts=lost.starts)
    try:
        job["worker-1"].start().said("started")
        lost.kill(signal.SIGCONT)
        assert lost.wait() == 83
        assert lost.last_words["reason"] == "replaced"
    finally:
        lost.end()
    wait_for(lambda: job["worker-0"].output().count("started") == 2, "a new start")
    (job.folder / "end").touch()
    assert [job[label].wait() for label in job.replicas] == [0, 0]


def test_the_one_that_failed_first_is_told_apart(make_job: Make) -> None:
    script = """
        import os, sys, time
        print("started", flush=True)
        if os.environ["GPUCLOUD_REPLICA"] == "worker-1":
            time.sleep(0.5)
            print("ValueError: the reason")
            sys.exit(3)
        time.sleep(2.5)  # what it waited for is gone, and it notices
        sys.exit(1)
    """
    job = make_job(textwrap.dedent(script), roles={"worker": 2})
    assert job["worker-1"].wait() == 3
    words = job["worker-1"].last_words
    assert words["reason"] == "script_failed" and "ValueError: the reason" in words["message"]
    job["worker-0"].said("exit code 1")
    job["worker-0"].said("a replica was lost")
    job["worker-0"].said("waiting for worker-1")
    job["worker-0"].kill(signal.SIGTERM)
    assert job["worker-0"].wait() == 83


def test_a_failing_script_gives_its_exit_code_and_last_lines(make_job: Make) -> None:
    job = make_job("import sys\nprint('x' * 10000)\nprint('the reason')\nsys.exit(7)")
    assert job["worker-0"].wait() == 7
    words = job["worker-0"].last_words
    assert words["message"].endswith("the reason")
    assert (job["worker-0"].home / "last-words").stat().st_size <= 4096


@pytest.mark.parametrize(("role", "code"), [("worker", 83), ("evaluator", 0)])
def test_stopped_with_time_to_clean_up(make_job: Make, role: str, code: int) -> None:
    script = """
        import os, pathlib, signal, subprocess, sys, time
        def end(*_):
            print("cleaning up", flush=True)
            pathlib.Path(os.environ["GPUCLOUD_CHECKPOINT_DIR"], "last.bin").write_text("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        subprocess.Popen(["sleep", "1000"])
        print("started", flush=True)
        while True:
            time.sleep(0.1)
    """
    job = make_job(textwrap.dedent(script), roles={"worker": 1, role: 1})
    replica = job[f"{role}-0"]
    replica.said("started")
    assert replica.process is not None
    children = psutil.Process(replica.process.pid).children(recursive=True)
    replica.kill(signal.SIGTERM)
    assert replica.wait() == code
    assert "cleaning up" in job.log(f"{role}-0")
    # only the lead writes checkpoints
    assert job.keys("checkpoints/") == (["last.bin"] if role == "worker" else [])
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive and len(gone) >= 2


def test_a_script_that_will_not_end_is_killed_and_dies_with_its_runner(make_job: Make) -> None:
    script = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("started", flush=True)
        time.sleep(1000)
    """
    job = make_job(textwrap.dedent(script))
    job["worker-0"].said("started")
    job["worker-0"].kill(signal.SIGTERM)
    assert job["worker-0"].wait() == 83
    replica = job["worker-0"].start()
    replica.said("started")
    assert replica.process is not None
    children = psutil.Process(replica.process.pid).children(recursive=True)
    replica.kill()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert children and not alive


def test_no_jupyter_is_imported() -> None:
    """A replica's start is time that its GPUs are billed, and its image may have no Jupyter."""
    foreign = ("jupyter_server", "jupyter_core", "IPython", "tornado", "traitlets", "httpx")
    code = f"""
        import sys, gpucloud_labext.runner
        print([name for name in {foreign!r} if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_missing_code(make_job: Make, bucket: Store) -> None:
    job = make_job("print('never')", start=False)
    digest = next(iter(e.key for e in bucket.entries(f".gpucloud/code/{job.code}")))
    bucket.delete([digest])
    job["worker-0"].start()
    assert job["worker-0"].wait() == 80
    words = job["worker-0"].last_words
    assert words["reason"] == "code_unavailable" and job.code in words["message"]


def test_a_store_that_is_away_is_waited_for(make_job: Make, bucket: Store) -> None:
    job = make_job("print('trained')", start=False)
    away = Forwarder("127.0.0.1", job.server.port)
    try:
        away.cut()
        job["worker-0"].start(AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{away.port}")
        job["worker-0"].said("The job's code cannot be read yet, trying again")
        away.join()
        assert job["worker-0"].wait() == 0
    finally:
        away.close()
    assert job["worker-0"].output().count("cannot be read yet") == 1  # not again and again
    assert "trained" in job.log("worker-0")


def test_packages_are_installed_once_and_cached_in_the_bucket(
    make_job: Make, tmp_path: Path
) -> None:
    wheel(tmp_path, "only_here", "1.5")
    # also what the image has in another version
    wheel(tmp_path, "six", "0.0.1")
    script = "import only_here, six\nprint('got', only_here.version, six.version)"
    job = make_job(script, start=False, packages=("only-here==1.5", "six==0.0.1"))
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    assert job["worker-0"].start(**pip).wait() == 0
    assert "got 1.5 0.0.1" in job["worker-0"].output()
    assert "installing 2 packages" in job["worker-0"].output()
    # another pod, which could not install them
    assert job["worker-0"].start(PIP_NO_INDEX="1").wait() == 0
    assert "got 1.5 0.0.1" in job["worker-0"].output()
    assert "installing" not in job["worker-0"].output()


def test_a_failing_install_tells_pips_words(make_job: Make) -> None:
    job = make_job("print('never')", packages=("no-such-package-of-anybody==1.0",))
    assert job["worker-0"].wait() == 81
    assert "no-such-package-of-anybody" in job["worker-0"].last_words["message"]
    assert "ERROR" in job.log("worker-0")


def test_logs_of_every_start_stay(make_job: Make) -> None:
    job = make_job("import sys\nprint('a' * 2000000)\nprint('said')\nsys.exit(1)")
    assert job["worker-0"].wait() == 1
    assert job["worker-0"].start().wait() == 1
    log = job.log("worker-0")
    assert log.count("said\n") == 2 and log.count("a" * 60000) >= 2
    assert log.index("restart 1") > log.index("said")
    assert len(job.keys("logs/")) >= 4
