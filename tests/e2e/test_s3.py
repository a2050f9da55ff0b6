"""Data in S3 as a user meets it: in a kernel, with the plain environment of the pod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from gpucloud_spawner.s3server import ceph

from ..ports import free_ports
from .cloud import Cloud, User, wait_for
from .test_browser import CHROMIUM, page, shoot

__all__ = ["page"]  # a fixture

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
LIST = """
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
# What a person types, and what is printed.
MAGIC = """
print(get_ipython().run_line_magic("gpucloud", {0!r}))
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
    told = ada.run_code(MAGIC.format("s3"))
    assert before["GPUCLOUD_S3_BUCKET"] in told and "5 B in 1 objects" in told
    assert before["AWS_SECRET_ACCESS_KEY"] not in told
    assert before["AWS_SECRET_ACCESS_KEY"] in ada.run_code(MAGIC.format("s3 --show-secret"))
    # one kernel: its client is made before the rotation and used after it
    rotation = "name = os.environ['AWS_ACCESS_KEY_ID']\n" + MAGIC.format("s3 rotate") + READ
    said = ada.run_code(BOTO3 + rotation + "print(name)").splitlines()
    assert (said[-2], said[-1]) == ("1,2,3", before["AWS_ACCESS_KEY_ID"])
    after = wait_for(lambda: _renewed(ada, before), "kernels start with the new key")
    assert f"The key is {after['AWS_ACCESS_KEY_ID']} now" in said[0]
    assert ada.run_code(BOTO3 + READ) == "1,2,3"
    dead = subprocess.run(
        [sys.executable, "-c", BOTO3 + "print(refused(s3.list_objects_v2, Bucket=bucket))"],
        env={**os.environ, **before, "AWS_SHARED_CREDENTIALS_FILE": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert dead.stdout.strip() in ("NoSuchBucket", "AccessDenied"), dead.stderr
    # as an administrator does it, in a terminal, which learns the key's name only
    said_there = gpucloud(cloud, "s3", "rotate", ada.name)
    last = wait_for(lambda: _renewed(ada, after), "kernels start with the newest key")
    assert last["AWS_ACCESS_KEY_ID"] in said_there
    assert last["AWS_SECRET_ACCESS_KEY"] not in said_there


def _renewed(user: User, before: dict[str, str]) -> dict[str, str] | None:
    found = environment_of(user)
    return found if found["AWS_ACCESS_KEY_ID"] != before["AWS_ACCESS_KEY_ID"] else None


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")
def test_the_file_browser_shows_the_bucket(cloud: Cloud, ada: User, page: Page) -> None:
    ada.start(profile="cpu")
    names = [entry["name"] for entry in ada.lab("GET", "api/contents/").json()["content"]]
    assert "s3" in names
    body = {"type": "file", "format": "text", "content": "1,2,3\n"}
    saved = ada.lab("PUT", "api/contents/s3/" + quote("übung 1+%.csv"), json=body)
    assert saved.status_code == 201, saved.text
    assert ada.lab("GET", "files/s3/" + quote("übung 1+%.csv")).text == "1,2,3\n"
    assert "['übung 1+%.csv']" in ada.run_code(BOTO3 + LIST)
    page.goto(f"{cloud.url}/hub/login")
    page.get_by_label("Username").fill(ada.name)
    page.get_by_role("button", name="Sign in").click()  # to the server, which runs
    entry = page.locator(".jp-DirListing-item")
    entry.filter(has_text="s3").dblclick()
    expect(entry.filter(has_text="übung 1+%.csv")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload Files").click()
    upload = {"name": "from a laptop.txt", "mimeType": "text/plain", "buffer": b"hello from a lap"}
    chooser.value.set_files([upload])
    entry.filter(has_text="from a laptop.txt").dblclick()
    expect(page.locator(".cm-content")).to_contain_text("hello from a lap")
    shoot(page, "9-s3-in-the-file-browser")
    assert "from a laptop.txt" in ada.run_code(BOTO3 + LIST)


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
    body = {"type": "file", "format": "text", "content": "there"}
    assert ada.lab("PUT", "api/contents/note.txt", json=body).status_code == 201
    assert ada.lab("GET", "api/contents/note.txt").json()["content"] == "there"
    ada.stop()


@pytest.mark.ceph
@pytest.mark.skipif(bool(ceph.missing()), reason="the Ceph packages are not installed")
def test_a_whole_gpucloud_on_ceph(tmp_path: Path) -> None:
    on_ceph = Cloud(tmp_path / "gpucloud", GPUCLOUD_S3="ceph")
    try:
        ada = on_ceph.start().user("ada")
        ada.start(profile="cpu")
        foreign = BOTO3 + WRITE + READ + TOUCH_FOREIGN.format("gpucloud-user-bob")
        assert ada.run_code(foreign).splitlines()[:2] == ["['data/übung 1.csv']", "1,2,3"]
        assert ada.lab("GET", "api/contents/s3/data").json()["content"][0]["name"] == "übung 1.csv"
        told = ada.run_code(MAGIC.format("s3 rotate") + BOTO3 + READ)
        assert told.endswith("\n1,2,3")
        ada.stop()
    finally:
        on_ceph.stop()
