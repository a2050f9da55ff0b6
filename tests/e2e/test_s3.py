"""Data in S3 as a user meets it: in a kernel, with the plain environment of the pod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ..ports import free_ports
from .cloud import Cloud, User, wait_for

BOTO3 = """
import boto3, os
from botocore.config import Config
from botocore.exceptions import ClientError
s3 = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
bucket = os.environ["GPUCLOUD_S3_BUCKET"]
def refused(action, **where):
    try:
        action(**where)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "done"
"""
WRITE = """
s3.put_object(Bucket=bucket, Key="data/übung 1.csv", Body=b"1,2,3")
print([o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]])
"""
READ = """
print(s3.get_object(Bucket=bucket, Key="data/übung 1.csv")["Body"].read().decode())
"""
WHERE = """
import json, os
print(json.dumps({n: v for n, v in os.environ.items() if n.startswith(("AWS_", "GPUCLOUD_S3"))}))
"""
TOUCH_FOREIGN = """
print(refused(s3.list_objects_v2, Bucket="{0}"), refused(s3.get_object, Bucket="{0}", Key="k"),
      refused(s3.put_object, Bucket="{0}", Key="k", Body=b"x"))
"""
# A kernel that goes by the file, as boto3 does where no variable says otherwise.
BY_THE_FILE = """
import os
del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
"""


def environment_of(user: User) -> dict[str, str]:
    found: dict[str, str] = json.loads(user.run_code(WHERE))
    return found


def gpucloud(cloud: Cloud, *words: str) -> str:
    """The `gpucloud` command, as an administrator types it on the hub's machine."""
    done = subprocess.run(
        [sys.executable, "-m", "gpucloud_spawner.cli", *words, "--config", str(cloud.config)],
        env=cloud.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kernel_uses_the_own_bucket_and_no_other(cloud: Cloud, ada: User, bob: User) -> None:
    ada.start(profile="cpu")
    bob.start(profile="cpu")
    assert ada.run_code(BOTO3 + WRITE + READ).splitlines() == ["['data/übung 1.csv']", "1,2,3"]
    found = environment_of(ada)
    mine, his = found["GPUCLOUD_S3_BUCKET"], environment_of(bob)["GPUCLOUD_S3_BUCKET"]
    assert mine != his
    assert bob.run_code(BOTO3 + TOUCH_FOREIGN.format(mine)).split() == ["NoSuchBucket"] * 3
    used = json.loads(gpucloud(cloud, "s3", "usage", ada.name))
    assert (used["bytes"], used["objects"]) == (5, 1)
    assert_nowhere(cloud, ada, found["AWS_SECRET_ACCESS_KEY"])


def assert_nowhere(cloud: Cloud, user: User, secret: str) -> None:
    """The secret is in the user's Secret, and in nothing that others read."""
    [pod] = cloud.pods(user.name)
    space = f"/api/v1/namespaces/{cloud.namespace}"
    assert secret not in json.dumps(pod)
    assert secret not in json.dumps(cloud.kube(f"{space}/events"))
    for file in [*cloud.data.glob("logs/*"), *cloud.data.glob("jupyterhub.sqlite*")]:
        assert secret.encode() not in file.read_bytes(), file
    references = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in pod["spec"]["containers"][0]["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    [name] = references
    kept = cloud.kube(f"{space}/secrets/{name}")
    assert kept["metadata"]["annotations"]["gpucloud.io/user"] == user.name
    assert not kept["metadata"].get("ownerReferences")


def test_a_rotation_reaches_a_running_server(cloud: Cloud, ada: User) -> None:
    ada.start(profile="cpu")
    ada.run_code(BOTO3 + WRITE)
    before = environment_of(ada)
    said = gpucloud(cloud, "s3", "rotate", ada.name)
    dead = BOTO3 + "print(refused(s3.get_object, Bucket=bucket, Key='data/übung 1.csv'))"
    assert ada.run_code(dead) != "done", "the variables hold the old key, which is dead at once"
    file = "print(open(os.environ['AWS_SHARED_CREDENTIALS_FILE']).read())"
    wait_for(
        lambda: before["AWS_ACCESS_KEY_ID"] not in ada.run_code("import os\n" + file),
        "the mounted file has the new key",
    )
    assert ada.run_code(BY_THE_FILE + BOTO3 + READ) == "1,2,3"
    fresh = wait_for(lambda: ada.run_code("import os\n" + file), "the file")
    assert fresh.split()[3] in said, "the administrator was told the key's name"
    assert fresh.split()[-1] not in said, "but not its secret"


def test_a_deleted_user_has_no_key_but_data_until_they_are_purged(cloud: Cloud) -> None:
    gone = cloud.user()
    gone.start(profile="cpu")
    gone.run_code(BOTO3 + WRITE)
    found = environment_of(gone)
    gone.stop()
    admin = cloud.user("admin")
    url = f"{cloud.url}/hub/api/users/{gone.name}"
    answer = httpx.delete(url, headers={"Authorization": f"token {admin.token}"}, timeout=60)
    assert answer.status_code == 204, answer.text
    secrets = cloud.kube(f"/api/v1/namespaces/{cloud.namespace}/secrets")["items"]
    assert gone.name not in [s["metadata"]["annotations"]["gpucloud.io/user"] for s in secrets]
    keys = {name: found[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    script = BOTO3 + "print(refused(s3.get_object, Bucket=bucket, Key='data/übung 1.csv'))"
    environment = {**os.environ, **found, **keys}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() in ("NoSuchBucket", "AccessDenied"), done.stderr
    assert json.loads(gpucloud(cloud, "s3", "usage", gone.name))["objects"] == 1
    gpucloud(cloud, "s3", "purge", gone.name, "--yes")
    assert json.loads(gpucloud(cloud, "s3", "usage", gone.name))["objects"] == 0


def test_a_restart_of_everything_keeps_data_and_key(own_cloud: Cloud) -> None:
    ada = own_cloud.user("ada")
    ada.start(profile="cpu")
    ada.run_code(BOTO3 + WRITE)
    key = environment_of(ada)["AWS_ACCESS_KEY_ID"]
    own_cloud.kill_child("s3")
    wait_for(lambda: _reads(ada), "the S3 server is back")
    own_cloud.stop()
    own_cloud.start()
    wait_for(lambda: ada.is_ready(), "ada's server runs again")
    assert ada.run_code(BOTO3 + READ) == "1,2,3"
    assert environment_of(ada)["AWS_ACCESS_KEY_ID"] == key


def _reads(user: User) -> bool:
    try:
        return user.run_code(BOTO3 + READ) == "1,2,3"
    except AssertionError:  # what the kernel says while there is no server
        return False


@pytest.fixture
def without_s3(tmp_path: Path) -> Iterator[Cloud]:
    """A gpucloud whose S3 endpoint does not answer."""
    endpoint = f"http://127.0.0.1:{free_ports()}"
    key = {"GPUCLOUD_RGW_ACCESS_KEY": "a", "GPUCLOUD_RGW_SECRET_KEY": "b"}
    cloud = Cloud(tmp_path / "gpucloud", GPUCLOUD_S3=endpoint, **key)
    try:
        yield cloud.start()
    finally:
        cloud.stop()


def test_a_start_without_s3_has_its_home_and_says_why(without_s3: Cloud) -> None:
    ada = without_s3.user("ada")
    assert ada.request_start(profile="cpu").status_code in (201, 202)
    told = " ".join(event.get("message", "") for event in ada.progress())
    assert "does not answer" in told
    assert "Your home volume works as usual" in told
    wait_for(ada.is_ready, "ada's server is ready")
    assert ada.run_code("import os; print('AWS_ACCESS_KEY_ID' in os.environ)") == "False"
    ada.stop()
