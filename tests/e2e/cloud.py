"""A running gpucloud for tests: the supervisor as a user starts it, and users that speak HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import websocket
import yaml

from ..ports import free_ports

SITE = Path(__file__).parent / "site" / "jupyterhub_config.py"
PATIENCE = 90.0


def wait_for(
    condition: Callable[[], Any], what: str, timeout: float = PATIENCE, every: float = 0.1
) -> Any:
    """The first true value of ``condition()``; fails the test with ``what`` at the timeout."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(every)
    return value


class Cloud:
    """`gpucloud run` in a process of its own, its state in ``data``."""

    def __init__(self, data: Path, config: Path = SITE, **environment: str) -> None:
        self.data = data
        self.config = config
        self.kubeconfig = data / "kubeconfig"
        self.namespace = "gpucloud"
        self.port = free_ports(6)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "GPUCLOUD_DATA": str(data),
            "GPUCLOUD_PORT": str(self.port),
            "GPUCLOUD_NODES": "2",
            "GPUCLOUD_GPUS_PER_NODE": "2",
            **environment,
        }
        self.process: subprocess.Popen[str] | None = None
        self.browsers: list[httpx.Client] = []

    def start(self) -> Cloud:
        command = [
            sys.executable,
            "-m",
            "gpucloud_spawner.cli",
            "run",
            "--config",
            str(self.config),
        ]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("gpucloud is ready at "):
                return self
        raise AssertionError(f"gpucloud did not start: {''.join(said)}\n{self.logs()}")

    def stop(self) -> None:
        """As Ctrl-C; returns when it has ended, and checks that it left no process behind."""
        self.close_browsers()
        if self.process is None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive, f"left behind: {alive}"
        self.process = None

    def close_browsers(self) -> None:
        while self.browsers:
            self.browsers.pop().close()

    def kill_child(self, words: str) -> None:
        """SIGKILL the child whose command line contains ``words``."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            if words in " ".join(child.cmdline()):
                child.kill()
                child.wait(10)
                return
        raise AssertionError(f"no child {words!r}")

    def logs(self) -> str:
        files = sorted((self.data / "logs").glob("*.log"))
        return "\n".join(f"--- {f.name}\n{f.read_text()[-4000:]}" for f in files)

    def user(self, name: str = "") -> User:
        """A new user, or the one of that name, logged in."""
        return User(self, name or f"u{uuid.uuid4().hex[:8]}")

    def kube(self, path: str, method: str = "GET", **arguments: Any) -> Any:
        """One request to the cluster's API as its administrator; the parsed answer."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]["server"]
        token = config["users"][0]["user"]["token"]
        answer = httpx.request(
            method,
            server + path,
            headers={"Authorization": f"Bearer {token}"},
            verify=False,
            timeout=60,
            **arguments,
        )
        return answer.json()

    def pods(self, user: str = "") -> list[dict[str, Any]]:
        """The pods of ``user``'s servers, or of all."""
        return self._owned("pods", user)

    def claims(self, user: str = "") -> list[dict[str, Any]]:
        """The volume claims of ``user``'s applications, or of all."""
        return self._owned("persistentvolumeclaims", user)

    def _owned(self, kind: str, user: str) -> list[dict[str, Any]]:
        items = self.kube(f"/api/v1/namespaces/{self.namespace}/{kind}").get("items", [])
        owner = "gpucloud.io/user"
        return [i for i in items if not user or i["metadata"]["annotations"].get(owner) == user]


class User:
    """A person: a browser session at the login, then a token of his own."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.browser = httpx.Client(base_url=cloud.url, follow_redirects=True, timeout=60)
        cloud.browsers.append(self.browser)
        page = self.browser.get("/hub/login")
        assert page.status_code == 200
        xsrf = self.browser.cookies["_xsrf"]
        form = {"username": name, "password": "", "_xsrf": xsrf}
        # not followed: the page behind it would start a server
        self.browser.post("/hub/login", data=form, follow_redirects=False)
        made = self.browser.post(
            f"/hub/api/users/{quote(name)}/tokens", headers={"X-XSRFToken": self.xsrf}, json={}
        )
        assert made.status_code == 201, made.text
        self.token = made.json()["token"]

    @property
    def xsrf(self) -> str:
        cookies = {c.name: c.value for c in self.browser.cookies.jar if c.path in ("/hub/", "/")}
        return cookies["_xsrf"] or ""

    def api(self, method: str, path: str = "", **arguments: Any) -> httpx.Response:
        """The hub's REST API below this user."""
        return httpx.request(
            method,
            f"{self.cloud.url}/hub/api/users/{quote(self.name)}{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=60,
            **arguments,
        )

    def all_users(self) -> list[dict[str, Any]]:
        """Every user of the hub; for the administrator."""
        answer = httpx.get(
            f"{self.cloud.url}/hub/api/users",
            headers={"Authorization": f"token {self.token}"},
            timeout=60,
        )
        users: list[dict[str, Any]] = answer.json()
        return users

    @staticmethod
    def _path(server: str) -> str:
        return f"/servers/{server}" if server else "/server"

    def request_start(self, server: str = "", **options: Any) -> httpx.Response:
        return self.api("POST", self._path(server), json={"user_options": options})

    def start(self, server: str = "", **options: Any) -> None:
        """Start a server and wait until it is ready."""
        answer = self.request_start(server, **options)
        assert answer.status_code in (201, 202), f"{answer.text}\n{self.cloud.logs()}"
        wait_for(lambda: self.is_ready(server), f"{self.name}'s server {server!r} is ready")

    def model(self, server: str = "") -> dict[str, Any]:
        servers: dict[str, Any] = self.api("GET", "?include_stopped_servers=1").json()["servers"]
        return dict(servers.get(server, {}))

    def is_ready(self, server: str = "") -> bool:
        return bool(self.model(server).get("ready"))

    def stop(self, server: str = "", remove: bool = False) -> None:
        answer = self.api("DELETE", self._path(server), json={"remove": remove})
        assert answer.status_code in (202, 204), answer.text
        wait_for(lambda: self.is_stopped(server), f"{self.name}'s server {server!r} is stopped")

    def is_stopped(self, server: str = "") -> bool:
        model = self.model(server)
        return not model or not (model.get("ready") or model.get("pending"))

    def progress(self, server: str = "") -> Iterator[dict[str, Any]]:
        """The events of the waiting page, as they come."""
        url = f"{self.cloud.url}/hub/api/users/{quote(self.name)}{self._path(server)}/progress"
        headers = {"Authorization": f"token {self.token}"}
        with httpx.stream("GET", url, headers=headers, timeout=PATIENCE) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def lab(self, method: str, path: str, server: str = "", **arguments: Any) -> httpx.Response:
        """A request to the user's own server, through the proxy."""
        base = f"{self.cloud.url}/user/{quote(self.name)}/" + (f"{server}/" if server else "")
        headers = {"Authorization": f"token {self.token}"}
        return httpx.request(method, base + path, headers=headers, timeout=60, **arguments)

    def run_code(self, code: str, server: str = "") -> str:
        """What ``code`` prints in a new kernel of the server."""
        kernel = self.lab("POST", "api/kernels", server, json={}).json()["id"]
        base = f"ws://127.0.0.1:{self.cloud.port}/user/{quote(self.name)}/"
        url = base + (f"{server}/" if server else "") + f"api/kernels/{kernel}/channels"
        header = {"Authorization": f"token {self.token}"}
        with closing(websocket.create_connection(url, header=header, timeout=60)) as channel:
            message_id = uuid.uuid4().hex
            channel.send(json.dumps(_execute_request(message_id, code)))
            output = _collect_output(channel, message_id)
        self.lab("DELETE", f"api/kernels/{kernel}", server)
        return output


def _execute_request(message_id: str, code: str) -> dict[str, Any]:
    header = {
        "msg_id": message_id,
        "msg_type": "execute_request",
        "username": "",
        "session": uuid.uuid4().hex,
        "version": "5.3",
    }
    content = {"code": code, "silent": False}
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
    }


def _collect_output(channel: websocket.WebSocket, message_id: str) -> str:
    text = ""
    while True:
        message = json.loads(channel.recv())
        if message["parent_header"].get("msg_id") != message_id:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            text += content["text"]
        elif kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return text.strip()
