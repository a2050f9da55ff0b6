"""From a wish to a request: what is asked of the service, and how often. The service is a server of
this test, which keeps what it was asked and may be away for a while."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import gpucloud_labext
from gpucloud_labext.errors import LabError
from gpucloud_labext.jobs import job as job_module
from gpucloud_labext.jobs import launch as launching
from gpucloud_labext.jobs.launch import Launch, launch
from gpucloud_labext.jobs.manifest import Manifest, key_of
from gpucloud_labext.jobs.store import Store
from gpucloud_labext.magics import tensorboard
from gpucloud_labext.magics.dispatch import dispatch
from gpucloud_labext.replica.output import Output
from tests.labext import lab
from tests.labext.contents import servers

CREATED = "2026-11-01T10:00:00Z"


class Service(ThreadingHTTPServer):
    """Plays the service: jobs by idempotency key; ``away``: so many requests get 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.away = 0
        self.lost = 0  # answers that never arrive
        self.down = 0  # so many requests are answered by the proxy before it
        self.archived: dict[str, str] = {}  # jobs that are over: where their logs are


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if self.server.down:
            self.server.down -= 1
            return self.send_error(503)
        if self.server.away:
            self.server.away -= 1
            return self._answer(503, {"code": "starting", "message": "not yet"})
        names = [f"{role}-{n}" for role, count in body["replicas"].items() for n in range(count)]
        model = {
            "id": f"train-{len(self.server.jobs)}",
            "name": body.get("name", "train"),
            "state": "queued",
            "reason": "Waiting for <2> GPUs",
            "created": CREATED,
            "replicas": [
                {"name": name, "role": name.partition("-")[0], "state": "pending", "gpus": 1}
                for name in names
            ],
            "cost": "0.00",
            "currency": "EUR",
            "tensorboard": "s3://ada/jobs/x/tensorboard/",
        }
        model = self.server.jobs.setdefault(body["idempotency_key"], model)
        if self.server.lost:
            self.server.lost -= 1
            self.close_connection = True
            return None
        return self._answer(201, model)

    def do_GET(self) -> None:
        if self.server.away:
            self.server.away -= 1
            return self._answer(503, {"code": "starting", "message": "not yet"})
        path = self.path.partition("?")[0]
        found = {model["id"]: model for model in self.server.jobs.values()}
        if path.endswith("/api/jobs"):
            return self._answer(200, {"jobs": list(found.values()), "next": None})
        if path.endswith("/logs"):
            place = self.server.archived[path.split("/")[-2]]
            words = {"code": "logs_archived", "message": "gone", "details": {"prefix": place}}
            return self._answer(410, words)
        model = found.get(path.rpartition("/")[2])
        if model is None:
            return self._answer(404, {"code": "no_such_job", "message": "none"})
        return self._answer(200, model)

    def _answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(
    s3: servers.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """In a notebook's environment, with a working directory of its own."""
    with Service() as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{service.server_address[1]}/services/gpucloud/"
        pod = {"GPUCLOUD_API_URL": url, "JUPYTERHUB_API_TOKEN": "t", "GPUCLOUD_PROFILE": "big"}
        for name, value in {**s3.environment(), **pod}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(launching, "_WAITS", (0.01, 0.01, 0.01))
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        Path("train.py").write_text("print(1)")
        yield service
        service.shutdown()


def test_the_request_is_as_agreed(service: Service, bucket: Store) -> None:
    job = gpucloud_labext.run(
        "train.py", "--x", 1, workers=2, ps=1, gpus=1, env={"LR": "0.1"}, timeout="1h30m"
    )
    [asked] = service.asked
    code = asked.pop("code")
    assert len(asked.pop("idempotency_key")) == 32
    assert asked == {
        "command": ["python", "train.py", "--x", "1"],
        "replicas": {"chief": 1, "worker": 2, "ps": 1, "evaluator": 0},
        "gpus": 1,
        "profile": "big",
        "env": {"LR": "0.1"},
        "timeout_seconds": 5400,
    }
    data = bucket.get(key_of(code))
    assert data is not None
    assert [file.path for file in Manifest.from_json(data).files] == ["train.py"]
    assert job.id == "train-0" and job.reason == "Waiting for <2> GPUs"
    assert "&lt;2&gt;" in job._repr_html_() and "<2>" not in job._repr_html_()


def test_a_script_that_is_ignored_is_no_job(service: Service, bucket: Store) -> None:
    Path(".gitignore").write_text("*.py\n")
    with pytest.raises(LabError, match=r"train.py is left out by a .gitignore") as caught:
        gpucloud_labext.run("train.py")
    assert caught.value.code == "script_ignored" and service.asked == []
    Path(".gpucloudignore").write_text("!train.py\n")
    gpucloud_labext.run("train.py")
    Path("linked").symlink_to("real")
    Path("real").mkdir()
    Path("real", "go.sh").write_text("#!/bin/sh\n")
    Path("real", "go.sh").chmod(0o755)
    gpucloud_labext.run("linked/go.sh")
    assert service.asked[-1]["command"] == ["./linked/go.sh"]


def test_a_launch_survives_a_restart_of_the_hub_and_starts_one_job(service: Service) -> None:
    service.away = 1
    service.lost = 1
    said: list[str] = []
    with pytest.raises(LabError) as refused:  # 503 with the service's own words is an answer
        launch(Launch(script="train.py"), said.append)
    assert refused.value.message == "not yet"
    job = launch(Launch(script="train.py"), said.append)
    assert job.id == "train-0" and len(service.jobs) == 1
    keys = [asked["idempotency_key"] for asked in service.asked]
    assert len(keys) == 3 and keys[1] == keys[2]
    assert "the service does not answer; trying again" in said


def test_a_launch_waits_while_the_proxy_answers_for_the_service(service: Service) -> None:
    service.down = 2
    said: list[str] = []
    launch(Launch(script="train.py"), said.append)
    assert len(service.asked) == 3 and len(service.jobs) == 1
    assert said.count("the service does not answer; trying again") == 2


def test_a_cell_is_the_script(service: Service, bucket: Store) -> None:
    launch(Launch(cell="print(1)", args=["--x"]))
    launch(Launch(cell="%time print(1)\n!ls"))
    plain, magic = service.asked
    assert plain["command"] == ["python", "gpucloud_cell.py", "--x"]
    assert magic["command"] == ["python", "-m", "IPython", "gpucloud_cell.ipy"]
    manifest = Manifest.from_json(bucket.get(key_of(plain["code"])) or b"")
    assert [file.path for file in manifest.files] == ["gpucloud_cell.py", "train.py"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Launch(script="none.py"), "There is no file"),
        (Launch(script="../x.py"), "is not in"),
        (Launch(), "Which script"),
        (Launch(script="notes.txt"), "neither Python"),
        (Launch(script="train.py", timeout="soon"), "'soon' is no time"),
    ],
)
def test_wrong_wishes(service: Service, wanted: Launch, words: str) -> None:
    Path("notes.txt").touch()
    with pytest.raises(LabError, match=words):
        launch(wanted)
    assert not service.asked


def test_the_magic(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    from gpucloud_labext.magics.command import Context

    line = "run train.py --workers 2 --no-chief --ps 1 --env A=b=c --name mine -- --x --env 1"
    job = dispatch(line, Context())
    [asked] = service.asked
    assert asked["command"] == ["python", "train.py", "--x", "--env", "1"]
    assert asked["replicas"]["chief"] == 0 and asked["env"] == {"A": "b=c"}
    assert "code: 1 files" in capsys.readouterr().out
    dispatch("run --name cell -- --x", Context(cell="print(1)"))
    assert service.asked[-1]["command"] == ["python", "gpucloud_cell.py", "--x"]
    listed = dispatch("jobs", Context())
    assert "mine" in repr(listed) and "&lt;2&gt;" in listed._repr_html_()
    assert dispatch("jobs mine", Context()).id == job.id
    with pytest.raises(LabError, match=r"no job 'nobody'\. Your last jobs: mine, cell"):
        dispatch("logs nobody", Context())
    with pytest.raises(LabError, match="write NAME=VALUE"):
        dispatch("run train.py --env A", Context())
    for name in ("run", "jobs", "logs", "stop"):
        assert "examples" in repr(dispatch(f"help {name}", Context())) or name == "stop"


def test_a_followed_log_survives_a_service_that_is_away(
    service: Service, bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpucloud_labext.jobs.logs.POLL_SECONDS", 0.05)
    job = gpucloud_labext.run("train.py")
    [model] = service.jobs.values()
    prefix = f"jobs/{job.id}-followed/"
    job.model["logs"] = model["logs"] = f"s3://{servers.BUCKET}/{prefix}logs/"
    output = Output(bucket, prefix, "worker-0", 1.0, io.BytesIO())
    said = [f"line {number}" for number in range(40)]

    def train() -> None:
        for number, line in enumerate(said):
            output.line(line.encode())
            output.send()
            if number == 10:
                service.away = 5  # the service restarts
        model.update(state="succeeded", ended=CREATED)

    training = threading.Thread(target=train)
    training.start()
    told = [line for line in job.logs(follow=True) if line.replica]
    training.join()
    assert [line.text for line in told] == said
    assert {line.replica for line in told} == {"worker-0"}
    assert service.away == 0 and job.state == "succeeded"


def test_tensorboard_of_a_job(service: Service) -> None:
    gpucloud_labext.run("train.py", name="mine")
    assert job_module.logdir("job:mine") == "s3://ada/jobs/x/tensorboard/"
    assert job_module.logdir("runs") == "runs"
    # what `%gpucloud tensorboard job:mine` asks the server for
    assert tensorboard._for_server("job:mine") == "s3://ada/jobs/x/tensorboard/"
    with pytest.raises(LabError, match="You have no job 'other'"):
        tensorboard._for_server("job:other")


def test_the_panels_form(service: Service, s3: servers.Store, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{service.server_address[1]}/services/gpucloud/"
    pod = {"GPUCLOUD_API_URL": url, "JUPYTERHUB_API_TOKEN": "t", "GPUCLOUD_PROFILE": "big"}
    with lab.running(tmp_path / "lab", {**s3.environment(), **pod}) as server:
        (server.home / "project").mkdir()
        (server.home / "project" / "train.py").write_text("print('of the panel')")
        (server.home / "away").symlink_to("/etc")
        wish = {"script": "project/train.py", "args": ["--x"], "workers": 2, "ps": 1, "gpus": 1}
        answer = server.api("jobs", "POST", json=wish)
        assert answer.status_code == 201, answer.text
        assert answer.json()["id"] == "train-0"
        [asked] = service.asked
        assert asked["command"] == ["python", "train.py", "--x"]
        assert asked["replicas"] == {"chief": 1, "worker": 2, "ps": 1, "evaluator": 0}
        for wrong, status, code in [
            ({"script": "none.py"}, 404, "no_script"),
            ({"script": "../../etc/passwd"}, 400, "outside"),
            ({"script": "away/passwd"}, 400, "outside"),
            ({"script": "project/train.py", "directory": "away"}, 400, "outside"),
            ({"script": "project/train.py", "workers": "2"}, 400, "bad_value"),
            ({"script": "project/train.py", "args": [1]}, 400, "bad_value"),
            ({"script": "project/train.py", "node": "n1"}, 400, "unknown_field"),
            ({}, 404, "no_script"),
        ]:
            answer = server.api("jobs", "POST", json=wrong)
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert len(service.asked) == 1


def test_the_panel_shows_the_log_of_a_job_that_is_over(
    service: Service, s3: servers.Store, bucket: Store, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{service.server_address[1]}/services/gpucloud/"
    pod = {"GPUCLOUD_API_URL": url, "JUPYTERHUB_API_TOKEN": "t"}
    for label in ("worker-0", "worker-1"):
        bucket.put(f"jobs/over-1/logs/{label}.log", f"one of {label}\ntwo\n".encode())
    bucket.put("jobs/over-1/logs/worker-1.1.log", b"three")
    service.archived = {"over-1": f"s3://{servers.BUCKET}/jobs/over-1/logs/"}
    with lab.running(tmp_path / "lab", {**s3.environment(), **pod}) as server:
        whole = "[worker-0] one of worker-0\n[worker-0] two\n[worker-1] one of worker-1\n"
        assert server.api("jobs/over-1/logs").text == f"{whole}[worker-1] two\n[worker-1] three\n"
        answer = server.api("jobs/over-1/logs?replica=worker-1&tail=2")
        assert answer.text == "two\nthree\n"
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
