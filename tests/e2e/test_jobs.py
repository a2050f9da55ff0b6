"""Jobs from a notebook, with real TensorFlow, on a whole gpucloud: launched, followed, killed,
failed, stopped. The trainings are those of examples/jobs, on data in S3."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from .cloud import Cloud, User, wait_for

pytestmark = pytest.mark.timeout(900)
EXAMPLES = Path(__file__).parents[2] / "examples" / "jobs"
# The data are easy: whatever trains well ends far below it, and an untrained network is at 2.3.
GOOD_LOSS = 0.05
FINAL = re.compile(r"final loss ([0-9.]+)")
SETUP = f"""
import os, shutil
if not os.path.exists("jobs"):
    shutil.copytree({str(EXAMPLES)!r}, "jobs", ignore=shutil.ignore_patterns("__pycache__"))
os.chdir("jobs")
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("jobs-cloud"))
    try:
        yield cloud.start()
    finally:
        cloud.stop()


@pytest.fixture(scope="module")
def ada(cloud: Cloud) -> User:
    """With a running notebook server, the examples in its home, and their data in S3."""
    ada = cloud.user()
    ada.start("work", profile="tensorflow", gpus="0")
    say(ada, "import digits; digits.upload()")
    return ada


def say(user: User, code: str) -> str:
    """What a notebook prints that runs ``code`` among the examples."""
    return user.run_code(SETUP + textwrap.dedent(code), "work")


class Jobs:
    """The user's jobs, as the service tells them to the user's own token."""

    def __init__(self, user: User) -> None:
        self.user = user

    def ask(self, method: str, path: str = "", **arguments: Any) -> httpx.Response:
        url = f"{self.user.cloud.url}/services/gpucloud/api/jobs{path}"
        headers = {"Authorization": f"token {self.user.token}"}
        return httpx.request(method, url, headers=headers, timeout=60, **arguments)

    def get(self, job: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/{job}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def named(self, name: str) -> str:
        found = [job["id"] for job in self.ask("GET").json()["jobs"] if job["name"] == name]
        assert found, f"no job {name}"
        return str(found[0])

    def ended(self, job: str, state: str, seconds: float = 300) -> dict[str, Any]:
        over = ("succeeded", "failed", "stopped")
        wait_for(lambda: self.get(job)["state"] in over, f"the end of {job}", seconds, every=0.5)
        found = self.get(job)
        assert found["state"] == state, json.dumps(found, indent=1) + self.logs(job)[-6000:]
        return found

    def logs(self, job: str) -> str:
        return self.ask("GET", f"/{job}/logs").text


@pytest.fixture(scope="module")
def jobs(ada: User) -> Jobs:
    return Jobs(ada)


def launch(user: User, line: str, before: str = "") -> str:
    """The id of the job that `%gpucloud run` starts."""
    said = say(user, f"{before}\njob = %gpucloud run {line}\nprint('id:', job.id)")
    return said.rpartition("id: ")[2].strip()


def losses(log: str) -> list[float]:
    return [float(text) for text in FINAL.findall(log)]


def processes(job: str, label: str) -> list[psutil.Process]:
    """The runner of a replica and its script, on this machine."""
    role, _, index = label.rpartition("-")
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        place = (environment.get("GPUCLOUD_JOB_ID"), environment.get("GPUCLOUD_ROLE"))
        if place == (job, role) and environment.get("JOB_COMPLETION_INDEX") == index:
            found.append(process)
    return found


def test_a_lost_worker_comes_back_and_the_job_succeeds(cloud: Cloud, ada: User, jobs: Jobs) -> None:
    job = launch(ada, "train_mirrored.py --workers 2 --gpus 1 --env STEPS=300 --name mirrored")
    wait_for(lambda: "step 20 loss" in jobs.logs(job), "a checkpoint", 300, every=0.5)
    runners = [p for p in processes(job, "worker-1") if "gpucloud_labext.runner" in p.cmdline()]
    assert runners, "no process of worker-1"
    for runner in runners:
        runner.kill()
    model = jobs.ended(job, "succeeded")
    log = say(ada, f"%gpucloud logs {job}")
    assert re.search(r"worker-0.*goes on from step \d+0, restart 1", log), log[-3000:]
    assert len(losses(log)) == 2 and max(losses(log)) < GOOD_LOSS
    restarts = {r["name"]: r["restarts"] for r in model["replicas"]}
    assert restarts == {"worker-0": 0, "worker-1": 1}
    assert model["gpu_seconds"] > 0


def test_parameter_servers_train_while_the_notebook_is_shut_down(
    cloud: Cloud, ada: User, jobs: Jobs
) -> None:
    job = launch(ada, "train_servers.py --workers 2 --ps 1 --gpus 0 --name servers")
    ada.stop("work")
    model = jobs.ended(job, "succeeded")
    assert [r["name"] for r in model["replicas"]] == ["chief-0", "worker-0", "worker-1", "ps-0"]
    wait_for(lambda: not processes(job, "ps-0"), "the end of the parameter server")
    ada.start("work", profile="tensorflow", gpus="0")
    [loss] = losses(say(ada, "%gpucloud logs servers chief-0"))
    assert loss < GOOD_LOSS


def test_a_cell_a_failing_script_and_a_failing_install(ada: User, jobs: Jobs) -> None:
    say(
        ada,
        """
        cell = "import train_single"
        get_ipython().run_cell_magic("gpucloud", "run --gpus 0 --name single", cell)
        failing = "print('so far so good')\\nraise ValueError('the reason')"
        get_ipython().run_cell_magic("gpucloud", "run --gpus 0 --retries 0 --name bad", failing)
        import sys
        from pathlib import Path
        # as pip leaves a package behind, but one that no index has
        info = Path.home() / "site" / "no_such_package_of_any-1.dist-info"
        info.mkdir(parents=True)
        words = "Metadata-Version: 2.1\\nName: no-such-package-of-any\\nVersion: 1\\n"
        (info / "METADATA").write_text(words)
        sys.path.append(str(info.parent))
        job = %gpucloud run train_single.py --gpus 0 --name uninstalled
        sys.path.remove(str(info.parent))
        """,
    )
    bad = jobs.ended(jobs.named("bad"), "failed")
    assert bad["failure"]["replica"] == "worker-0" and bad["failure"]["exit_code"] == 1
    assert any("ValueError: the reason" in line for line in bad["failure"]["lines"])
    uninstalled = jobs.ended(jobs.named("uninstalled"), "failed")
    assert uninstalled["failure"]["exit_code"] == 81
    assert "no-such-package-of-any" in json.dumps(uninstalled["failure"])
    jobs.ended(jobs.named("single"), "succeeded")
    said = say(
        ada,
        """
        import gpucloud_labext.jobs.job as own
        try:
            own.find("bad").result()
        except own.JobFailed as error:
            print(error)
        found = %gpucloud jobs
        print(found)
        %gpucloud logs single
        print(own.logdir("job:single"))
        """,
    )
    assert "worker-0 failed first, with exit code 1" in said and "ValueError: the reason" in said
    assert re.search(r"single-\w+ +✔ succeeded +1 worker", said)
    [loss] = losses(said)
    assert loss < GOOD_LOSS
    assert re.search(rf"s3://.*/{jobs.named('single')}/tensorboard/$", said)


def test_watched_stopped_and_followed(ada: User, jobs: Jobs) -> None:
    (job,) = say(
        ada,
        """
        open("count.py", "w").write(
            "import time\\nfor n in range(1000):\\n    print('count', n)\\n    time.sleep(0.2)")
        import gpucloud_labext
        print(gpucloud_labext.run("count.py", workers=2, gpus=0).id)
        """,
    ).splitlines()
    wait_for(lambda: "count 3" in jobs.logs(job), "its first lines", every=0.5)
    said = say(
        ada,
        f"""
        import threading, time
        import gpucloud_labext.jobs.job as own
        job = own.find({job!r})
        threading.Timer(4, job.stop).start()
        %gpucloud logs {job} -f
        %gpucloud jobs {job} --watch
        print(job.state)
        """,
    )
    assert said.splitlines()[-1] == "stopped"
    for worker in ("worker-0", "worker-1"):
        found = re.findall(rf"\[{worker}\]\x1b\[0m count (\d+)", said)
        # nothing lost, nothing told twice
        assert [int(n) for n in found] == [*range(len(found))] and len(found) > 5
    assert jobs.get(job)["state"] == "stopped"
    wait_for(lambda: not processes(job, "worker-0"), "the end of its processes")
