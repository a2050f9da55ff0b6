"""What pods do to a kubelet: odd names and paths, tricks with files, probes that misbehave. The
node and its other pods go on, and nothing outside of the pod is touched.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import ApiError

from .support import (
    NAMESPACE,
    Cluster,
    Obj,
    condition,
    everything,
    first_line,
    is_ready,
    mount,
    pod,
    processes_with,
    shell,
    state_of,
    terminated,
    waiting,
)

LOOP = "echo up; while :; do sleep 0.02; done"


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster:
        yield cluster
    assert processes_with(str(tmp_path)) == []


async def test_a_volume_by_hand_takes_no_others_data_along(cluster: Cluster) -> None:
    home = await cluster.claim("home")
    source = {"persistentVolumeClaim": {"claimName": "home"}}
    await cluster.run(shell("a", "touch kept", **mount("/home/jovyan", source)))
    for number, uid in enumerate(("*", "../..", "../../pods", "")):
        name = f"by-hand-{number}"
        reference = {"kind": "PersistentVolumeClaim", "namespace": "x", "name": "y", "uid": uid}
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "claimRef": reference,
        }
        body = {"metadata": {"name": name}, "spec": spec}
        await cluster.client.create("persistentvolumes", body)
        await cluster.client.patch("persistentvolumes", name, {"metadata": {"finalizers": None}})
        await cluster.client.delete("persistentvolumes", name)
    # Another deletion shows that the kubelet has come past those.
    other = await cluster.claim("other")
    more = mount("/home/jovyan", {"persistentVolumeClaim": {"claimName": "other"}})
    await cluster.run(shell("b", "touch gone", **more))
    patch = {"metadata": {"finalizers": None}}
    await cluster.client.patch("persistentvolumeclaims", "other", patch, NAMESPACE)
    await cluster.client.delete("persistentvolumeclaims", "other", NAMESPACE)
    async with asyncio.timeout(10):
        while other.exists():
            await asyncio.sleep(0.02)
    assert (home / "kept").exists()


@pytest.mark.parametrize(
    "script",
    [
        "rm data && mkdir data && touch data/mine",
        "rm data && echo mine > data",
        "rm data && ln -s /tmp data",
        "chmod 500 . ",
    ],
)
async def test_what_a_user_puts_in_the_place_of_a_mount_stays(
    cluster: Cluster, script: str
) -> None:
    home = await cluster.claim("home")
    volumes = [
        {"name": "home", "persistentVolumeClaim": {"claimName": "home"}},
        {"name": "data", "emptyDir": {}},
    ]
    mounts = [
        {"name": "home", "mountPath": "/home/jovyan"},
        {"name": "data", "mountPath": "/home/jovyan/data"},
    ]
    both = {"volumes": volumes, "container": {"volumeMounts": mounts}}
    for name in ("a", "b"):  # also when a later pod finds it there
        obj = await cluster.run(shell(name, script if name == "a" else "true", **both))
        assert obj["status"]["phase"] == "Succeeded"
        before = [(home / "data").lstat().st_mode, (home / "data").is_dir()]
        await cluster.delete(name)
        await cluster.gone(name)
        if "mine" in script or "ln" in script:
            assert [(home / "data").lstat().st_mode, (home / "data").is_dir()] == before
    home.chmod(0o700)


async def test_paths_do_not_leave_their_place(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    up = "../" * 30 + str(tmp_path / "outside" / "link").lstrip("/")
    empty = {"emptyDir": {}}
    obj = await cluster.run(shell("a", "true", **mount(f"/home/jovyan/{up}", empty)))
    assert obj["status"]["phase"] == "Succeeded"
    obj = await cluster.run(shell("b", "ls $GPUCLOUD_MOUNTS/relative", **mount("relative", empty)))
    assert obj["status"]["phase"] == "Succeeded"
    home = await cluster.claim("home")
    source = {"persistentVolumeClaim": {"claimName": "home"}}
    link = f"ln -s {tmp_path / 'outside'} out; ln -s {tmp_path / 'new'} dangling"
    await cluster.run(shell("c", link, **mount("/home/jovyan", source)))
    assert (home / "out").is_symlink()
    for number, sub in enumerate(("out", "out/deeper", "dangling")):
        name = f"d{number}"
        await cluster.create(shell(name, "touch x", **mount("/m", source, subPath=sub)))
        event = await cluster.event(name, "Failed")
        assert "leaves its volume by a link" in event["message"]
        await cluster.delete(name, grace=0)
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("trick", ["mkfifo", "ln -s /dev/zero", "mkdir"])
async def test_a_termination_log_that_is_none(cluster: Cluster, trick: str) -> None:
    container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    script = f"rm $0; {trick} $0; echo last words; exit 3"
    body = pod("a", "sh", "-c", script, "/dev/termination-log", container=container)
    body["spec"]["restartPolicy"] = "OnFailure"
    await cluster.create(body)
    obj = await cluster.until("a", lambda p: state_of(p).get("restartCount", 0) >= 1)
    assert state_of(obj)["lastState"]["terminated"]["message"] == "last words\n"
    await cluster.delete("a", grace=0)
    await cluster.gone("a")


async def test_a_large_termination_message_is_cut(cluster: Cluster) -> None:
    write = "head -c 9000000 /dev/zero | tr '\\0' x > /dev/termination-log"
    assert terminated(await cluster.run(shell("a", write)))["message"] == "x" * 4096


async def test_output_that_is_no_text(cluster: Cluster) -> None:
    script = r"printf 'a\377\376b\n\000\033[31m\n'; exit 1"
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    obj = await cluster.run(shell("a", script, container=policy))
    assert terminated(obj)["message"] == "a\ufffd\ufffdb\n\0\033[31m\n"
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/a/log"
    long_ago = {"sinceSeconds": "9" * 18}
    async with cluster.client.open("GET", path, params=long_ago) as response:
        assert await response.read() == b"a\xff\xfeb\n\0\033[31m\n"
    for name, value in {
        "tailLines": "9" * 30,
        "sinceSeconds": "1e9",
        "limitBytes": "-1",
        "sinceTime": "2024-01-01T00:00:00",
    }.items():
        with pytest.raises(ApiError) as refused:
            await cluster.logs("a", **{name: value})
        assert refused.value.status == 400


@pytest.mark.parametrize(
    "container",
    [
        {"command": ["sh", "-c", "a\0b"]},
        {"command": ["a\0b"]},
        {"command": ["true"], "env": [{"name": "A", "value": "a\0b"}]},
        {"command": ["true"], "args": ["x" * 200_000]},
        {"command": [""]},
    ],
)
async def test_commands_that_cannot_be_executed(cluster: Cluster, container: Obj) -> None:
    obj = await cluster.run(pod("a", container=container))
    assert (terminated(obj)["exitCode"], terminated(obj)["reason"]) == (128, "StartError")


async def test_a_variable_that_is_no_text(cluster: Cluster) -> None:
    data = {"k": base64.b64encode(b"\xff\xfe").decode()}
    meta = {"name": "s"}
    await cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    code = "import os; print(os.environb[b'K'])"
    text = await cluster.output(pod("a", sys.executable, "-c", code, container={"env": env}))
    assert text == "b'\\xff\\xfe'\n"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("busybox\n:1", "InvalidImageName"),
        ("../../etc:1", "InvalidImageName"),
        ("a" * 5000, "InvalidImageName"),
        ("[!x]*", "InvalidImageName"),
        ("émoji🙂", "InvalidImageName"),
        ("acme.example/x", "ErrImagePull"),
    ],
)
async def test_odd_image_names(cluster: Cluster, image: str, reason: str) -> None:
    await cluster.create(pod("a", "true", container={"image": image}))
    obj = await cluster.until("a", lambda p: waiting(p).get("reason", "").startswith(reason))
    assert obj["status"]["phase"] == "Pending"
    await cluster.event("a", "Failed")
    await cluster.delete("a", grace=0)
    await cluster.gone("a")


ACTIONS: list[Obj] = [
    {"exec": {"command": ["a\0b"]}},
    {"exec": {"command": ["sh", "-c", "exit 1"]}},
    {"exec": {"command": [""]}},
    {"exec": {"command": ["sh", "-c", "rm -r $PWD; exit 1"]}},
    {"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "b\r\nc"}]}},
    {"httpGet": {"port": 1, "host": "exa mple"}},
    {"httpGet": {"port": "nosuch"}},
    {"tcpSocket": {"port": 1, "host": "x" * 300}},
]


async def test_a_probe_that_cannot_be_tried_has_failed(cluster: Cluster) -> None:
    for number, action in enumerate(ACTIONS):
        probe = {**action, "periodSeconds": 1, "failureThreshold": 2}
        body = pod(f"p{number}", "sleep", "60", container={"livenessProbe": probe})
        body["spec"] |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": 0}
        await cluster.create(body)
    for number in range(len(ACTIONS)):
        await cluster.until(f"p{number}", lambda p: state_of(p).get("restartCount", 0) >= 1)


async def test_a_talkative_probe_succeeds(cluster: Cluster) -> None:
    command = ["sh", "-c", "head -c 1000000 /dev/zero"]
    probe = {"exec": {"command": command}, "timeoutSeconds": 5}
    await cluster.create(pod("a", "sleep", "60", container={"readinessProbe": probe}))
    await cluster.until("a", is_ready)


async def test_a_deletion_hastens_a_restart_that_is_under_way(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["false"]}, "failureThreshold": 1}
    body = shell("a", f"trap '' TERM; {LOOP}", container={"livenessProbe": probe})
    body["spec"] |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": 60}
    await cluster.create(body)
    event = await cluster.event("a", "Killing")
    assert "failed liveness probe" in event["message"]
    await cluster.delete("a", grace=1)
    await cluster.gone("a")


async def test_a_pod_that_was_called_unready_says_that_it_is_well(cluster: Cluster) -> None:
    """The node controller does so when a node falls silent for a while."""
    await cluster.started(pod("a", "sleep", "60"))
    await cluster.until("a", is_ready)
    lost = {"type": "Ready", "status": "False"}
    patched = await cluster.client.patch_status(
        "pods", "a", {"status": {"conditions": [lost]}}, NAMESPACE, kind="strategic"
    )
    assert condition(patched, "Ready")["status"] == "False"
    version = int(patched["metadata"]["resourceVersion"])
    await cluster.until(
        "a", lambda p: is_ready(p) and int(p["metadata"]["resourceVersion"]) > version
    )


async def test_init_containers_run_again_after_a_restart_of_the_node(
    apiserver: APIServer, tmp_path: Path
) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    init = {"name": "i", "image": "busybox", "command": ["sh", "-c", "echo init >> /v/log"]}
    body = shell("a", f"echo main >> /v/log; {LOOP}", container=mounts, volumes=volumes)
    body["spec"] |= {"restartPolicy": "Always", "initContainers": [{**init, **mounts}]}
    async with everything(apiserver, tmp_path) as cluster:
        obj = await cluster.started(body)
        await first_line(cluster, "a", container="c")
    log = tmp_path / "kubelet/pods" / obj["metadata"]["uid"] / "volumes/v/log"
    assert log.read_text() == "init\nmain\n"
    async with everything(apiserver, tmp_path) as cluster:
        obj = await cluster.until("a", lambda p: state_of(p).get("restartCount") == 1)
        obj = await cluster.until("a", is_ready)
        status = obj["status"]["initContainerStatuses"][0]
        assert (status["restartCount"], status["state"]["terminated"]["exitCode"]) == (1, 0)
        last = state_of(obj)["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("Unknown", 255)
        await first_line(cluster, "a", container="c")
        assert log.read_text() == "init\nmain\ninit\nmain\n"
        await cluster.delete("a", grace=0)
        await cluster.gone("a")


async def test_ready_means_that_every_pod_has_been_looked_at(
    apiserver: APIServer, tmp_path: Path
) -> None:
    names = [f"p{number}" for number in range(8)]
    async with everything(apiserver, tmp_path) as cluster:
        for name in names:
            await cluster.create(pod(name, "sleep", "60"))
        before = [await cluster.phase(name, "Running") for name in names]
    assert {p["status"]["phase"] for p in before} == {"Running"}
    async with everything(apiserver, tmp_path) as cluster:
        found = (await cluster.client.list("pods", NAMESPACE))["items"]
        assert {p["status"]["phase"] for p in found} == {"Failed"}  # they ended with their node
