"""The user's bucket for jobs: whole objects by boto3, from a notebook and from a replica.

Blocking; safe to use from several threads. The file browser's drive has a client of its own
(`contents`), which needs Jupyter; this one must not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from ..s3.keys import KeyFile, session_arguments

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

THREADS = 16
# Seconds. A replica rather waits for a store that restarts than fails.
CONNECT_TIMEOUT, READ_TIMEOUT, ATTEMPTS = 5, 60, 5
_MISSING = {"NoSuchKey", "NotFound", "404", "NoSuchBucket"}


class NoStore(Exception):
    """This place knows no bucket; the text says what is missing."""


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    modified: datetime


class Store:
    """The bucket ``name``."""

    def __init__(self, name: str, endpoint: str = "", region: str = "") -> None:
        self.name = name
        self._endpoint = endpoint
        self._region = region
        self._lock = threading.Lock()
        self._made_for: object = None
        self._client: S3Client | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Store:
        """The user's own bucket, as every pod of gpucloud has it. Raises NoStore."""
        bucket = environment.get("GPUCLOUD_S3_BUCKET")
        if not bucket:
            raise NoStore(
                "There is no S3 bucket here (GPUCLOUD_S3_BUCKET is not set), and a job's code and "
                "results travel through one. Start a new server, or ask your administrator."
            )
        endpoint = environment.get("AWS_ENDPOINT_URL_S3", "")
        return cls(bucket, endpoint, environment.get("AWS_DEFAULT_REGION", ""))

    @property
    def client(self) -> S3Client:
        """Made anew when the mounted credentials file has changed: keys may be rotated."""
        file = KeyFile.of_environment()
        stamp = file.stamp() if file else None
        with self._lock:
            if self._client is None or stamp != self._made_for:
                self._client, self._made_for = self._connect(file), stamp
            return self._client

    def _connect(self, file: KeyFile | None) -> S3Client:
        config: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            "max_pool_connections": THREADS,
            # Ceph and rclone know only the classic checksums
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        if self._endpoint:
            config["s3"] = {"addressing_style": "path"}  # bucket names are hosts only at AWS
        # the variables keep the keys of the pod's start, the file has those of today
        session = boto3.Session(**session_arguments(file.read() if file else None))
        client: S3Client = session.client(
            "s3",
            endpoint_url=self._endpoint or None,
            region_name=self._region or None,
            config=Config(**config),
        )
        return client

    # --- one object ---

    def get(self, key: str) -> bytes | None:
        """The content; None if there is no such object."""
        try:
            with self.client.get_object(Bucket=self.name, Key=key)["Body"] as body:
                return body.read()
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def get_tail(self, key: str, start: int) -> bytes | None:
        """The content from byte ``start``; None if there is no such object.

        Some servers answer a range with the whole object, or with 416 at its very end.
        """
        try:
            answer = self.client.get_object(Bucket=self.name, Key=key, Range=f"bytes={start}-")
        except ClientError as error:
            if is_missing(error):
                return None
            if error.response.get("Error", {}).get("Code") in ("InvalidRange", "416"):
                return b""
            raise
        with answer["Body"] as body:
            data = body.read()
        return data if "ContentRange" in answer else data[start:]

    def put(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data, ContentType=content_type)

    def put_file(self, key: str, path: Path) -> None:
        """Big files go up in parts."""
        self.client.upload_file(str(path), self.name, key)

    def get_file(self, key: str, path: Path) -> None:
        """Raises ClientError if there is no such object."""
        self.client.download_file(self.name, key, str(path))

    def exists(self, key: str) -> bool:
        try:
            self.client.head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if is_missing(error):
                return False
            raise
        return True

    # --- many ---

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything whose key begins with ``prefix``; none in a missing bucket."""
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.name, Prefix=prefix):
            for item in page.get("Contents", ()):
                yield Entry(item["Key"], item["Size"], item["LastModified"])

    def delete(self, keys: list[str]) -> None:
        for start in range(0, len(keys), 1000):
            objects: Any = [{"Key": key} for key in keys[start : start + 1000]]
            self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})


def is_missing(error: BaseException) -> bool:
    """Whether ``error`` says that there is no such object."""
    if not isinstance(error, ClientError):
        return False
    return error.response.get("Error", {}).get("Code") in _MISSING


def words(error: BaseException) -> str:
    """What a store's error means, for a person, without keys."""
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        return f"the S3 store refused it ({said.get('Code', '')}: {said.get('Message', '')})"
    return f"the S3 store cannot be reached ({type(error).__name__})"
