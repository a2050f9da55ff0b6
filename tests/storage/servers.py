"""Real S3 servers for tests: the embedded one and a one-node Ceph, as processes of their own."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError

from gpucloud_spawner.storage.s3 import Credentials
from gpucloud_spawner.storage.s3_local import LocalS3

from ..ports import free_ports

READY_SECONDS = 90.0


class Server:
    """`python -m gpucloud_spawner.s3server` on ``data``; the port is kept over restarts."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.port = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.options = (*options, "--mon-port", str(self.port + 1))
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.with_name(f"{data.name}.log")

    def start(self) -> None:
        command = [sys.executable, "-m", "gpucloud_spawner.s3server", "--data", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.options],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)) as asked:
                asked.request("GET", "/")
                asked.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None


@contextlib.contextmanager
def running(data: Path, *options: str) -> Iterator[Server]:
    server = Server(data, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def provider(server: Server) -> LocalS3:
    return LocalS3(server.data, server.endpoint)


def client(keys: Credentials, **settings: Any) -> Any:
    """boto3 as a pod's environment makes it; no retries, so that a refusal is seen at once."""
    config = Config(
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        **settings,
    )
    return boto3.client(
        "s3",
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        endpoint_url=keys.endpoint,
        region_name=keys.region,
        config=config,
    )


def put(keys: Credentials, key: str, body: bytes = b"data", bucket: str = "") -> None:
    client(keys).put_object(Bucket=bucket or keys.bucket, Key=key, Body=body)


def get(keys: Credentials, key: str, bucket: str = "") -> bytes:
    body: bytes = client(keys).get_object(Bucket=bucket or keys.bucket, Key=key)["Body"].read()
    return body


def fetch(url: str) -> tuple[int, bytes]:
    """What an unsigned or presigned GET answers."""
    answer = httpx.get(url, timeout=10)
    return answer.status_code, answer.content


def names(keys: Credentials, bucket: str = "") -> list[str]:
    answer = client(keys).list_objects_v2(Bucket=bucket or keys.bucket)
    return [entry["Key"] for entry in answer.get("Contents", [])]


def refused(action: Any) -> str:
    """The error code with which the server refuses ``action()``; fails where it does not."""
    try:
        action()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    raise AssertionError("it was not refused")


def is_dead(keys: Credentials, key: str = "known") -> bool:
    """Whether nothing at all can be done with ``keys``; fails with what still can."""
    s3 = client(keys)
    where = {"Bucket": keys.bucket}
    for action in (
        lambda: s3.list_buckets(),
        lambda: s3.list_objects_v2(**where),
        lambda: s3.head_bucket(**where),
        lambda: s3.get_object(**where, Key=key),
        lambda: s3.head_object(**where, Key=key),
        lambda: s3.put_object(**where, Key="new", Body=b"x"),
        lambda: s3.delete_object(**where, Key=key),
        lambda: s3.create_multipart_upload(**where, Key="big"),
        lambda: s3.create_bucket(Bucket="another-bucket"),
    ):
        refused(action)
    return True
