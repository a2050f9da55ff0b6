"""The extension's REST API with answers of a test's choice: a Jupyter server extension of its own.

The far side of the browser: the panel's code, JupyterLab, its requests and `_xsrf` are real, while
GPUs, jobs and a ledger with a history cost money or time. `POST gpucloud/fake` changes the state.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado import web

GIB = 2**30


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def device(index: int, used: float, percent: int) -> dict[str, Any]:
    return {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA A100-SXM4-40GB",
        "memory_used_bytes": int(used * GIB),
        "memory_total_bytes": 40 * GIB,
        "utilization_percent": percent,
        "processes": [{"pid": 4711, "memory_bytes": int(used * GIB), "command": "python train.py"}],
    }


def replica(role: str, index: int, state: str) -> dict[str, Any]:
    return {
        "name": f"{role}-{index}",
        "role": role,
        "index": index,
        "state": state,
        "reason": None,
        "exit_code": None,
        "gpus": 1,
    }


def job(number: int, state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"job-{number}",
        "name": f"mnist-{number}",
        "state": state,
        "reason": None,
        "created": ago(minutes=40),
        "started": ago(minutes=38),
        "ended": None,
        "replicas": [
            replica(role, index, "running")
            for role, index in (("worker", 0), ("worker", 1), ("ps", 0))
        ],
        "failure": None,
        "gpu_seconds": 4560,
        "cost": "2.53",
        "currency": "EUR",
        "tensorboard": f"s3://ada/jobs/job-{number}/tensorboard/",
        **more,
    }


def failed_job(number: int) -> dict[str, Any]:
    failure = {
        "replica": "worker-1",
        "exit_code": 1,
        "lines": ["Traceback (most recent call last):", "ValueError: <b>shape</b> (28, 28)"],
        "hint": "The script raised an error.",
    }
    return job(number, "failed", failure=failure, ended=ago(minutes=3))


class State:
    """What the API answers. Every POST and DELETE is noted in `requests`."""

    def __init__(self) -> None:
        self.gpus: dict[str, Any] = {
            "message": None,
            "devices": [device(0, 31.2, 87), device(1, 38.9, 42)],
        }
        self.tensorboards: dict[str, dict[str, Any]] = {}
        self.jobs = [job(2, "running"), failed_job(1)]
        self.error: dict[str, Any] | None = None  # of api/jobs and api/usage
        self.requests: list[list[Any]] = []

    def usage(self, month: str) -> dict[str, Any]:
        rows = [
            {
                "day": f"{month}-{day:02}",
                "gpu_seconds": 3600 * (day * 7 % 11),
                "storage_gib_seconds": 1,
                "cost": f"{day * 7 % 11 * 2}.00",
            }
            for day in range(1, 24)
        ]
        total = {"gpu_seconds": sum(row["gpu_seconds"] for row in rows), "cost": "242.00"}
        return {"start": "", "end": "", "currency": "EUR", "rows": rows, "total": total}

    def start(self, logdir: str, base_url: str) -> tuple[dict[str, Any], int]:
        for one in self.tensorboards.values():
            if one["logdir"] == logdir:
                one["state"] = "running"
                return one, 200
        name = f"tb{len(self.tensorboards)}"
        self.tensorboards[name] = {
            "id": name,
            "logdir": logdir,
            "url": url_path_join(base_url, "gpucloud/tensorboard", name) + "/",
            "state": "starting",
            "started": ago(seconds=1),
            "last_used": ago(minutes=5),
            "memory_bytes": 212 * 2**20,
        }
        return self.tensorboards[name], 201


class Api(APIHandler):
    def initialize(self, state: State) -> None:
        self.state = state

    def write_json(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.finish(json.dumps(value))

    def _refused(self, path: str) -> bool:
        error = self.state.error
        if error is None or path.split("/")[0] not in ("jobs", "usage"):
            return False
        self.write_json({**error, "details": {}}, error["status"])
        return True

    @web.authenticated
    def get(self, path: str) -> None:
        if self._refused(path):
            return
        boards = self.state.tensorboards
        kind, _, name = path.partition("/")
        if kind == "tensorboards" and name:
            boards[name]["state"] = "running"
            self.write_json(boards[name])
        elif name.endswith("/logs"):
            who = self.get_query_argument("replica", "worker-0")
            lines = [f"[{who}] step {step} loss {1 / (step + 1):.4f}" for step in range(200)]
            self.set_header("Content-Type", "text/plain")
            self.finish("\n".join(lines))
        elif kind == "jobs" and name:
            self.write_json(next(job for job in self.state.jobs if job["id"] == name))
        else:
            self.write_json(self._answer(path))

    def _answer(self, path: str) -> Any:
        state = self.state
        answers = {
            "status": lambda: {
                "user": "ada",
                "application": "lab",
                "team": "vision",
                "profile": "tensorflow",
                "image": "",
                "gpus": 2,
                "started": ago(hours=5),
                "uptime_seconds": 18_300,
                "cost_so_far": "12.20",
                "currency": "EUR",
                "price_per_gpu_hour": "1.20",
                "service": "ok",
                "s3": {"bucket": "ada", "endpoint": "http://127.0.0.1:9"},
            },
            "gpus": lambda: state.gpus,
            "s3": lambda: {"bucket": "ada", "endpoint": "", "team_buckets": {"vision": "t-vision"}},
            "tensorboards": lambda: {"tensorboards": list(state.tensorboards.values())},
            "jobs": lambda: {"jobs": state.jobs, "next": None},
            "usage": lambda: state.usage(self.get_query_argument("month")),
        }
        return answers[path]()

    @web.authenticated
    def post(self, path: str) -> None:
        body = self.get_json_body() or {}
        self.state.requests.append(["POST", path, body])
        if path == "tensorboards":
            self.write_json(*self.state.start(body["logdir"], self.base_url))
        elif body["gpus"] > 2:
            message = "4 GPUs per worker are not offered; allowed: 0 to 2."
            self.write_json({"code": "bad_gpus", "message": message, "details": {}}, 400)
        else:
            self.state.jobs.insert(0, job(3, "queued", reason="Waiting for 2 GPUs."))
            self.write_json(self.state.jobs[0], 201)

    @web.authenticated
    def delete(self, path: str) -> None:
        self.state.requests.append(["DELETE", path, None])
        kind, _, name = path.partition("/")
        if kind == "tensorboards":
            del self.state.tensorboards[name]
        else:
            self.state.jobs = [
                {**one, "state": "stopped"} if one["id"] == name else one for one in self.state.jobs
            ]
        self.write_json({})


class TensorBoardPage(JupyterHandler):
    @web.authenticated
    def get(self, name: str) -> None:
        self.finish(f"<!doctype html><title>TensorBoard</title><h1>TensorBoard {name}</h1>")


class Control(APIHandler):
    """A test reads and changes the state."""

    def initialize(self, state: State) -> None:
        self.state = state

    @web.authenticated
    def get(self) -> None:
        self.finish(json.dumps(self.state.requests))

    @web.authenticated
    def post(self) -> None:
        for name, value in (self.get_json_body() or {}).items():
            setattr(self.state, name, value)
        self.finish("{}")


def _load_jupyter_server_extension(app: ServerApp) -> None:
    state = State()
    base = url_path_join(app.base_url, "gpucloud")
    app.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, r"api/(.+)"), Api, {"state": state}),
            (url_path_join(base, r"tensorboard/(\w+)/"), TensorBoardPage),
            (url_path_join(base, "fake"), Control, {"state": state}),
        ],
    )
