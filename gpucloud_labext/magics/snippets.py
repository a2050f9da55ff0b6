"""Lines to paste into a terminal of one's own machine, so that other S3 clients find the bucket."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

HIDDEN = "YOUR-SECRET-KEY"  # what stands in the secret's place


def snippets(data: Mapping[str, Any], access: str, secret: str) -> dict[str, list[str]]:
    """Title -> lines. ``data`` is `api/s3`; without ``secret``, one that says so stands there."""
    url, bucket, region = data["endpoint"], data["bucket"], data["region"]
    shown = secret or HIDDEN
    keys = f"access_key_id={quote(access)} secret_access_key={quote(shown)}"
    found = {
        "mc (MinIO client)": [
            f"mc alias set gpucloud {quote(url)} {quote(access)} {quote(shown)}",
            f"mc ls gpucloud/{bucket}",
        ],
        "aws (AWS command line)": [
            f"aws configure set profile.gpucloud.aws_access_key_id {quote(access)}",
            f"aws configure set profile.gpucloud.aws_secret_access_key {quote(shown)}",
            f"aws configure set profile.gpucloud.region {quote(region)}",
            f"aws configure set profile.gpucloud.endpoint_url {quote(url)}",
            f"aws --profile gpucloud s3 ls s3://{bucket}/",
        ],
        "rclone": [
            f"rclone config create gpucloud s3 provider=Other endpoint={quote(url)} "
            f"region={quote(region)} {keys}",
            f"rclone ls gpucloud:{bucket}",
        ],
        "Python (boto3)": [
            "import boto3",
            f's3 = boto3.client("s3", endpoint_url={url!r}, region_name={region!r},',
            f"    aws_access_key_id={access!r}, aws_secret_access_key={shown!r})",
            f's3.list_objects_v2(Bucket="{bucket}")',
        ],
    }
    if _is_loopback(url):
        note = "# this endpoint is on the machine of the server: only programs there reach it"
        found = {title: [note, *lines] for title, lines in found.items()}
    return found


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
