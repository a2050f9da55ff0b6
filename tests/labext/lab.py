"""A real Jupyter server with the extension, as a pod has it, and a gpucloud service that only
answers and remembers: what the extension itself does needs no hub."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import websocket

from .contents.servers import TOKEN, Jupyter

SERVICE_TOKEN = "the-servers-own-token"


class Lab(Jupyter):
    """A Jupyter server; ``environment`` is what the spawner would have set."""

    def __init__(self, folder: Path, environment: dict[str, str], **traits: Any) -> None:
        config = "".join(f"c.GPUCloudExtension.{k} = {v!r}\n" for k, v in traits.items())
        super().__init__(folder, environment, config or "# nothing\n")

    def api(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """A request to the extension's API."""
        return self.http.request(method, f"/gpucloud/api/{path}", **options)

    def activity(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api("activity").json()
        return found

    def last_activity(self) -> str:
        """What the server would report to the hub."""
        return str(self.http.get("/api/status").json()["last_activity"])

    def kernel(self) -> Kernel:
        return Kernel(self)


class Kernel:
    """A kernel of the server, and a page that is connected to it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        body = {"path": "work.ipynb", "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        session = lab.http.post("/api/sessions", json=body).json()
        self.id = session["kernel"]["id"]
        self._session = session["id"]
        self._socket = websocket.create_connection(
            f"ws://127.0.0.1:{lab.port}/api/kernels/{self.id}/channels?session_id={uuid.uuid4().hex}",
            header={"Authorization": f"token {TOKEN}"},
            timeout=60,
        )

    def send(self, kind: str, **content: Any) -> str:
        message = uuid.uuid4().hex
        header = {"msg_id": message, "msg_type": kind, "username": "", "session": "s"}
        header["version"] = "5.3"
        whole = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._socket.send(json.dumps({**whole, "channel": "shell"}))
        return message

    def execute(self, code: str) -> str:
        return self.send("execute_request", code=code, silent=False, store_history=False)

    def messages(self, parent: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """What comes of a request, until the kernel is idle again and has replied."""
        replied = idle = False
        while not (replied and idle):
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != parent:
                continue
            kind, content = message["msg_type"], message["content"]
            replied = replied or kind.endswith("_reply")
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            yield kind, content

    def run(self, code: str) -> list[tuple[str, dict[str, Any]]]:
        return list(self.messages(self.execute(code)))

    def close(self) -> None:
        self._socket.close()
        self.lab.http.delete(f"/api/sessions/{self._session}")

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def running(folder: Path, environment: dict[str, str], **traits: Any) -> Iterator[Lab]:
    lab = Lab(folder, environment, **traits)
    try:
        lab.start()
        yield lab
    finally:
        lab.close()


def terminal_socket(lab: Lab, name: str) -> closing[websocket.WebSocket]:
    """A terminal's page."""
    return closing(
        websocket.create_connection(
            f"ws://127.0.0.1:{lab.port}/terminals/websocket/{name}",
            header={"Authorization": f"token {TOKEN}"},
            timeout=60,
        )
    )


class Service:
    """Answers like the service beside the hub; what it answers is set by the test."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, str]] = []  # method, path with query, authorization
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                whole = self.path.removeprefix("/services/gpucloud/")
                service.asked.append((self.command, whole, self.headers.get("Authorization", "")))
                status, body = service.answers.get(
                    whole.partition("?")[0],
                    (404, {"code": "not_found", "message": "There is none.", "details": {}}),
                )
                if callable(body):  # a stream, that it writes itself
                    self.send_response(status)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.close_connection = True
                    body(self)
                    return
                is_text = isinstance(body, str)
                data = body.encode() if is_text else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if is_text else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                """Not to the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/services/gpucloud/"

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
