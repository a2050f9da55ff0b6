"""Jobs over REST, for tests: launched, waited for, with code of their own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import boto3
import httpx
from botocore.config import Config as S3Config
from botocore.exceptions import ClientError

from gpucloud_labext.jobs.manifest import File, Manifest, blob_key, key_of
from tests.e2e.cloud import wait_for

Ask = Callable[..., httpx.Response]
_keys = itertools.count()
NO_CODE = "0" * 64
IMAGES = {"notebook": {"image": "gpucloud/notebook:0.1"}}


def body(**changes: Any) -> dict[str, Any]:
    return {
        "idempotency_key": f"key {next(_keys)}",
        "command": ["python", "train.py"],
        "code": NO_CODE,
        "profile": "cpu",
        **changes,
    }


def launch(ask: Ask, who: str, **changes: Any) -> dict[str, Any]:
    answer = ask(who, "api/jobs", "POST", json=body(**changes))
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def over(ask: Ask, who: str, job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_over() -> bool:
        found.update(ask(who, f"api/jobs/{job['id']}").json())
        return found["state"] in ("succeeded", "failed", "stopped")

    wait_for(is_over, "the job is over")
    return found


def store_of(keys: dict[str, Any]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=keys["endpoint"],
        region_name=keys["region"],
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
        config=S3Config(request_checksum_calculation="when_required"),
    )


def works(keys: dict[str, Any]) -> bool:
    try:
        store_of(keys).list_objects_v2(Bucket=keys["bucket"])
    except ClientError:
        return False
    return True


def upload(ask: Ask, who: str, script: str) -> str:
    """A working directory with one script, as the lab extension uploads it."""
    keys = ask(who, "api/s3/credentials", "POST", json={}).json()
    store = store_of(keys)
    data = script.encode()
    digest = hashlib.sha256(data).hexdigest()
    manifest = Manifest((File("train.py", digest, len(data)),))
    store.put_object(Bucket=keys["bucket"], Key=blob_key(digest), Body=data)
    store.put_object(Bucket=keys["bucket"], Key=key_of(manifest.sha256), Body=manifest.to_json())
    return manifest.sha256
