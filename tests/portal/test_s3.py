"""Data in S3 and applications, as the service tells them: to whom they belong, and to admins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.e2e.cloud import User, wait_for

from .conftest import Ask, Site

FILL = """
with open("big", "wb") as file:
    file.write(b"x" * 3_000_000)
"""


def client(told: dict[str, Any]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=told["endpoint"],
        region_name=told["region"],
        aws_access_key_id=told["access_key"],
        aws_secret_access_key=told["secret_key"],
        config=Config(
            retries={"total_max_attempts": 1}, request_checksum_calculation="when_required"
        ),
    )


def rotated(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


@pytest.fixture(scope="module", autouse=True)
def carl(site: Site) -> Iterator[User]:
    """Somebody with an application; the first start of all also makes the namespace."""
    user = site.user("carl")
    user.start("train", profile="cpu", storage="20Gi")
    yield user
    if not user.is_stopped("train"):
        user.stop("train")


def test_a_new_key_is_told_once_and_ends_the_old_one(ask: Ask, site: Site) -> None:
    site.user("nina")
    before = ask("nina", "api/s3").json()
    assert (before["bucket"], before["usage"]) == (None, None)
    assert "first server" in before["message"]
    first = rotated(ask("nina", "api/s3/credentials", "POST", json={}))
    client(first).put_object(Bucket=first["bucket"], Key="a b+%.csv", Body=b"12345")
    second = rotated(ask("nina", "api/s3/credentials", "POST", json={}))
    with pytest.raises(ClientError):
        client(first).list_objects_v2(Bucket=first["bucket"])
    assert client(second).list_objects_v2(Bucket=second["bucket"])["KeyCount"] == 1
    told = ask("nina", "api/s3")
    assert told.json() == {
        "user": "nina",
        "endpoint": second["endpoint"],
        "region": second["region"],
        "bucket": second["bucket"],
        "team_buckets": {},
        "usage": {"bytes": 5, "objects": 1, "quota_bytes": None},
        "message": None,
    }
    for secret in (first["secret_key"], second["secret_key"]):
        assert secret not in told.text
        for log in (site.service.log, *(site.cloud.data / "logs").iterdir()):
            assert secret not in log.read_text()


def test_others_keys_are_out_of_reach_and_admins_do_not_learn_secrets(ask: Ask, site: Site) -> None:
    site.user("olga")
    mine = rotated(ask("olga", "api/s3/credentials", "POST", json={}))
    for who in ("bob", "vera", "namesake", "auditor"):
        answer = ask(who, "api/s3/credentials", "POST", json={"user": "olga"})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), who
    assert ask("bob", "api/s3?user=olga").status_code == 403
    assert ask("auditor", "api/s3?user=olga").json()["bucket"] == mine["bucket"]
    assert "Contents" not in client(mine).list_objects_v2(Bucket=mine["bucket"])
    told = rotated(ask("admin", "api/s3/credentials", "POST", json={"user": "olga"}))
    assert told["access_key"] != mine["access_key"]
    assert "secret_key" not in told
    with pytest.raises(ClientError):
        client(mine).list_objects_v2(Bucket=mine["bucket"])
    answer = ask("admin", "api/s3/credentials", "POST", json={"user": "no-such-user"})
    assert (answer.status_code, answer.json()["code"]) == (404, "s3_no_key")


def test_an_application_tells_its_state_volume_and_bucket(ask: Ask, site: Site, carl: User) -> None:
    assert ask("bob", "api/applications").json() == {"applications": []}
    carl.run_code(FILL, "train")
    path = "api/applications/train"
    found = wait_for(
        lambda: _if_used(ask("carl", path).json()), "the volume's used bytes are known"
    )
    assert (found["user"], found["name"], found["profile"]) == ("carl", "train", "cpu")
    assert (found["state"], found["reason"]) == ("running", "")
    assert found["volume"]["size_bytes"] == 20 * 2**30
    [claim] = site.cloud.claims("carl")
    assert found["volume"]["name"] == claim["metadata"]["name"]
    assert found["s3"]["usage"] == {"bytes": 0, "objects": 0, "quota_bytes": None}
    [short] = ask("carl", "api/applications").json()["applications"]
    assert (short["state"], short["volume"]["used_bytes"]) == ("running", None)
    assert ask("carl", "api/applications/trai").status_code == 404
    assert ask("bob", f"{path}?user=carl").status_code == 403
    assert ask("bob", path).status_code == 404
    assert ask("bob", "api/applications?scope=all").status_code == 403
    everything = ask("auditor", "api/applications?scope=all").json()["applications"]
    assert short in everything
    carl.stop("train")
    stopped = ask("admin", f"{path}?user=carl").json()
    assert (stopped["state"], stopped["node"]) == ("stopped", None)
    assert stopped["volume"]["used_bytes"] is None


def _if_used(found: dict[str, Any]) -> dict[str, Any] | None:
    volume = found.get("volume") or {}
    return found if (volume.get("used_bytes") or 0) >= 3_000_000 else None
