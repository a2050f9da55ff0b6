"""What is killed comes back and finds what was running; what ended meanwhile is stopped."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psutil
import pytest

from .bills import PodWatch, billed
from .cloud import Cloud, User, wait_for


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One for all of these tests; each leaves it running, and nothing in it."""
    cloud = Cloud(tmp_path_factory.mktemp("killed") / "gpucloud")
    try:
        yield cloud.start()
    finally:
        cloud.stop()


S3 = """
import boto3, os
s3, bucket = boto3.client("s3"), os.environ["GPUCLOUD_S3_BUCKET"]
"""
PUT = S3 + 's3.put_object(Bucket=bucket, Key="k", Body=b"1,2,3")'
GET = """
body = s3.get_object(Bucket=bucket, Key="k")["Body"].read().decode()
print(body, os.environ["AWS_ACCESS_KEY_ID"])
"""
PID = "import os; print(os.getppid())"


def test_a_killed_hub_finds_running_servers_and_sees_the_dead_as_stopped(own_cloud: Cloud) -> None:
    ada, bob = own_cloud.user("ada"), own_cloud.user("bob")
    watch = PodWatch(own_cloud)
    ada.start("lab", profile="tensorflow", gpus="1")
    ada.run_code("open('kept.txt', 'w').write('still here')", "lab")
    bob.start(profile="tensorflow", gpus="1")
    server = int(ada.run_code(PID, "lab"))

    own_cloud.kill_child("jupyterhub")
    [dead] = own_cloud.pods("bob")
    own_cloud.kube(f"/api/v1/namespaces/gpucloud/pods/{dead['metadata']['name']}", "DELETE")

    wait_for(lambda: _answers(own_cloud), "the hub is back")
    wait_for(lambda: ada.is_ready("lab"), "ada's server is found again")
    assert int(ada.run_code(PID, "lab")) == server, "it never stopped"
    assert ada.run_code("print(open('kept.txt').read())", "lab") == "still here"
    wait_for(bob.is_stopped, "bob's is shown as stopped")
    assert own_cloud.pods("bob") == []
    ada.stop("lab")
    wait_for(lambda: len(watch.deleted) == 2, "both pods are gone")
    for user in (ada, bob):  # the service died with the hub, while bob's pod ended
        assert watch.seconds_of(user.name) > 0
        wait_for(
            lambda user=user: billed(user)[0] == watch.seconds_of(user.name), "the bill is exact"
        )


def test_a_hub_killed_in_the_middle_of_a_start_leaves_no_orphan(own_cloud: Cloud) -> None:
    ada = own_cloud.user("ada")
    for number in (1, 2):
        holder = own_cloud.user(f"h{number}")
        holder.start(profile="tensorflow", gpus="2")
    ada.request_start(profile="tensorflow", gpus="1")
    wait_for(lambda: own_cloud.pods("ada"), "ada's pod waits")

    own_cloud.kill_child("jupyterhub")
    wait_for(lambda: _answers(own_cloud), "the hub is back")
    # either the start goes on, or nothing of it is left: never a pod without a server
    wait_for(
        lambda: own_cloud.pods("ada") == [] and ada.is_stopped(),
        "the start that nobody waits for any more is gone",
        timeout=120,
    )
    for number in (1, 2):
        own_cloud.user(f"h{number}").stop()


def test_a_whole_restart_finds_servers_files_objects_and_keys_again(own_cloud: Cloud) -> None:
    ada = own_cloud.user("ada")
    ada.start("lab", profile="tensorflow", gpus="2")
    ada.run_code("open('kept.txt', 'w').write('still here')\n" + PUT, "lab")
    own_cloud.kill_child("s3")
    wait_for(lambda: _object_and_key(ada), "the S3 server is back")
    object_and_key = _object_and_key(ada)
    assert object_and_key.startswith("1,2,3 ")
    server = psutil.Process(int(ada.run_code(PID, "lab")))

    own_cloud.stop()
    assert not server.is_running()
    own_cloud.start()

    wait_for(lambda: ada.is_ready("lab"), "ada's server runs again")
    assert ada.run_code("print(open('kept.txt').read())", "lab") == "still here"
    assert len(ada.run_code("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", "lab")) == 3
    assert _object_and_key(ada) == object_and_key
    ada.stop("lab")
    assert own_cloud.pods() == []


def test_a_killed_cluster_comes_back_without_a_server_noticing(own_cloud: Cloud) -> None:
    ada = own_cloud.user("ada")
    ada.start(profile="cpu")
    server = int(ada.run_code(PID))
    own_cloud.kill_child("localcluster")
    assert ada.lab("GET", "api/kernels").status_code == 200
    wait_for(lambda: _cluster_answers(own_cloud), "the cluster is back")
    assert int(ada.run_code(PID)) == server
    ada.stop()
    wait_for(lambda: own_cloud.pods() == [], "it still can be stopped")


def _object_and_key(user: User) -> str:
    try:
        return user.run_code(S3 + GET, "lab")
    except AssertionError:  # what the kernel says while there is no server
        return ""


def _answers(cloud: Cloud) -> bool:
    try:
        return httpx.get(f"{cloud.url}/hub/api/", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _cluster_answers(cloud: Cloud) -> bool:
    try:
        return bool(cloud.kube("/api/v1/namespaces/gpucloud/pods").get("items"))
    except (httpx.HTTPError, FileNotFoundError):  # the kubeconfig is written when it is ready
        return False
