"""The kubelet's pure parts: expansion, images, volumes on disk, mounted paths, status, devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpucloud_spawner.localcluster.gpus import (
    DeviceManager,
    NodeGPUs,
    NotEnoughDevices,
    device_env,
    plan_nodes,
)
from gpucloud_spawner.localcluster.kubelet.environment import expand, field_value, resource_value
from gpucloud_spawner.localcluster.kubelet.host import Addresses
from gpucloud_spawner.localcluster.kubelet.images import ImageStore, UnknownImage
from gpucloud_spawner.localcluster.kubelet.runtime import Exit
from gpucloud_spawner.localcluster.kubelet.status import ContainerState, conditions, phase
from gpucloud_spawner.localcluster.kubelet.view import View, container_view
from gpucloud_spawner.localcluster.kubelet.volumes import MountError, inside, write_atomically

Obj = dict[str, Any]
DONE = Exit(0, "Completed", "", "", "")
BROKEN = Exit(1, "Error", "", "", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A}", "$A ${A}"),
        ("$$", "$"),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_changes_nothing_that_is_not_set_or_escaped(text: str) -> None:
    plain = text.replace("$$", "")
    assume("$$" not in plain)
    assert expand(plain, {}) == plain
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def test_downward_fields() -> None:
    labels = {"app": "x", "a.b/c": 'say "hi"'}
    pod = {
        "metadata": {"name": "n", "namespace": "ns", "uid": "u", "labels": labels},
        "spec": {"nodeName": "node-0", "serviceAccountName": "default"},
        "status": {"podIP": "127.1.0.2", "podIPs": [{"ip": "127.1.0.2"}]},
    }
    assert field_value(pod, "metadata.labels['a.b/c']") == 'say "hi"'
    assert field_value(pod, "metadata.annotations['missing']") == ""
    assert field_value(pod, "metadata.labels") == 'a.b/c="say \\"hi\\""\napp="x"'
    assert field_value(pod, "status.podIPs") == "127.1.0.2"


def test_resource_fields() -> None:
    resources = {"limits": {"memory": "1Gi", "cpu": "1500m"}, "requests": {"cpu": "1"}}
    container = {"name": "c", "resources": resources}
    pod = {"spec": {"containers": [container]}}

    def value(resource: str, **more: str) -> str:
        return resource_value(pod, container, {"resource": resource, **more}, {"cpu": "8"})

    assert value("limits.memory", divisor="1Mi") == "1024"
    assert value("limits.cpu") == "2"  # rounded up
    assert value("limits.cpu", divisor="1m") == "1500"
    assert value("requests.memory") == str(2**30)
    container["resources"] = {}
    assert value("limits.cpu") == "8"


def test_images() -> None:
    store = ImageStore(("quay.io/jupyterhub/*", "busybox*", "python:*", "mine"))
    assert store.get("quay.io/jupyterhub/singleuser").command == ("jupyterhub-singleuser",)
    assert store.get("busybox").command == ("sh",)
    assert store.get("python:3.12").command == ("python3",)
    assert store.get("mine").name == "mine:latest"
    with pytest.raises(UnknownImage, match=r"busybox\*.*--image PATTERN"):
        store.get("docker.io/library/nginx")


def test_files_are_changed_all_at_once(tmp_path: Path) -> None:
    write_atomically(tmp_path, {"a": (b"1", 0o600), "d/b": (b"2", 0o644)})
    before = (tmp_path / "..data").resolve()
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "d/b").read_bytes() == b"2"
    write_atomically(tmp_path, {"a": (b"1", 0o600), "d/b": (b"2", 0o644)})
    assert (tmp_path / "..data").resolve() == before  # nothing to do
    write_atomically(tmp_path, {"c": (b"3", 0o644)})
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith("..")} == {"c"}
    assert not before.exists()
    with pytest.raises(MountError):
        write_atomically(tmp_path, {"../x": (b"", 0o644)})


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc"])
def test_sub_paths_stay_inside(tmp_path: Path, path: str) -> None:
    with pytest.raises(MountError):
        inside(tmp_path, path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/real"),
        ("/data/x.csv", "/real/x.csv"),
        ("--dir=/data", "--dir=/real"),
        ("cat /data/x && ls '/data'", "cat /real/x && ls '/real'"),
        ("/data:/data/bin", "/real:/real/bin"),
        ("/data2", "/data2"),
        ("/mnt/data", "/mnt/data"),
        ("http://h/data", "http://h/data"),
        ("/home/jovyan/nb", "/home/me/nb"),
        ("/home/jovyan-2", "/home/jovyan-2"),
        ("/data/deep/x", "/deeper/x"),
    ],
)
def test_mounted_paths_are_translated(text: str, expected: str) -> None:
    paths = {"/data": Path("/real"), "/data/deep": Path("/deeper")}
    assert View(Path("/home/me"), "/home/jovyan", paths).translate(text) == expected


def test_mounts_are_laid_out(tmp_path: Path) -> None:
    volumes = {name: tmp_path / name for name in ("home", "cfg", "big")}
    for path in volumes.values():
        path.mkdir()
    container = {
        "name": "c",
        "volumeMounts": [
            {"name": "home", "mountPath": "/home/jovyan", "subPath": "alice"},
            {"name": "cfg", "mountPath": "/home/jovyan/shared"},
            {"name": "big", "mountPath": "/data/"},
        ],
    }
    view = container_view(tmp_path / "pod", container, "/home/jovyan", volumes)
    assert view.home == volumes["home"] / "alice"
    assert (view.home / "shared").resolve() == volumes["cfg"]
    assert view.links == {view.home / "shared": volumes["cfg"]}
    assert (tmp_path / "pod/mounts/c/data").resolve() == volumes["big"]
    # What the user has put at the place of a mount is never removed.
    (view.home / "shared").unlink()
    (view.home / "shared").mkdir()
    (view.home / "shared/mine").touch()
    view = container_view(tmp_path / "pod", container, "/home/jovyan", volumes)
    assert (view.home / "shared/mine").exists()
    assert view.translate("/home/jovyan/shared") == str(volumes["cfg"])


def state(**values: Any) -> ContainerState:
    return ContainerState("c", "i", **values)


@pytest.mark.parametrize(
    ("policy", "inits", "mains", "expected"),
    [
        ("Always", [], [state()], "Pending"),
        ("Always", [], [state(running_since="t")], "Running"),
        ("Always", [], [state(exit=DONE)], "Running"),
        ("Always", [], [state(last=BROKEN)], "Running"),
        ("Never", [], [state(exit=DONE)], "Succeeded"),
        ("Never", [], [state(exit=DONE), state(exit=BROKEN)], "Failed"),
        ("Never", [], [state(exit=BROKEN), state(running_since="t")], "Running"),
        ("OnFailure", [], [state(exit=DONE)], "Succeeded"),
        ("OnFailure", [], [state(exit=BROKEN)], "Running"),
        ("OnFailure", [state(running_since="t")], [state()], "Pending"),
        ("OnFailure", [state(exit=BROKEN)], [state()], "Pending"),
        ("Never", [state(exit=BROKEN)], [state()], "Failed"),
        ("Never", [state(exit=DONE)], [state(running_since="t")], "Running"),
        ("Never", [], [state(exit=DONE), state()], "Pending"),
    ],
)
def test_phases(
    policy: str, inits: list[ContainerState], mains: list[ContainerState], expected: str
) -> None:
    assert phase(policy, inits, mains) == expected


def test_conditions_keep_their_times_and_those_of_others() -> None:
    pod: Obj = {"metadata": {"generation": 3}, "status": {"conditions": []}}
    first = conditions(pod, "Pending", [], [state()], True, "t1")
    ready = next(c for c in first if c["type"] == "Ready")
    assert ready["reason"] == "ContainersNotReady"
    assert ready["message"] == "containers with unready status: [c]"
    assert ready["observedGeneration"] == 3
    other = {"type": "gpucloud.io/x", "status": "True"}
    pod["status"]["conditions"] = [*first, other]
    running = state(running_since="t", ready=True)
    second = {c["type"]: c for c in conditions(pod, "Running", [], [running], True, "t2")}
    assert second["Ready"]["lastTransitionTime"] == "t2"
    assert second["Initialized"]["lastTransitionTime"] == "t1"
    assert second["gpucloud.io/x"] == other
    pod["status"]["conditions"] = list(second.values())
    ended = {c["type"]: c for c in conditions(pod, "Succeeded", [], [state()], True, "t3")}
    assert ended["Ready"]["reason"] == ended["Initialized"]["reason"] == "PodCompleted"
    assert ended["PodReadyToStartContainers"]["status"] == "False"


def test_addresses_are_reused_late() -> None:
    addresses = Addresses("127.9.0.0/29")
    assert addresses.node == "127.9.0.1"
    first = addresses.allocate()
    assert first == "127.9.0.2"
    addresses.release(first)
    others = [addresses.allocate() for _ in range(4)]
    assert first not in others
    assert addresses.allocate() == first
    with pytest.raises(RuntimeError, match="no free address"):
        addresses.allocate()
    restored = Addresses("127.9.0.0/29")
    restored.reserve("127.9.0.4")
    assert restored.allocate() == "127.9.0.5"


def gpu_pod(uid: str, *counts: int, init: int = 0) -> Obj:
    def container(name: str, count: int) -> Obj:
        return {"name": name, "resources": {"limits": {"nvidia.com/gpu": str(count)}}}

    spec = {"containers": [container(f"c{i}", count) for i, count in enumerate(counts)]}
    if init:
        spec["initContainers"] = [container("i", init)]
    return {"metadata": {"uid": uid}, "spec": spec}


def test_devices_belong_to_one_pod_for_its_life() -> None:
    manager = DeviceManager({"nvidia.com/gpu": ["0", "1", "2"]})
    grant = manager.allocate(gpu_pod("a", 1, 1, init=2))
    assert grant["c0"] == {"nvidia.com/gpu": ["0"]}
    assert grant["c1"] == {"nvidia.com/gpu": ["1"]}
    assert grant["i"] == {"nvidia.com/gpu": ["0", "1"]}
    assert manager.allocate(gpu_pod("a", 1, 1)) == grant
    with pytest.raises(NotEnoughDevices) as caught:
        manager.allocate(gpu_pod("b", 2))
    assert (caught.value.wanted, caught.value.used, caught.value.capacity) == (2, 2, 3)
    assert manager.allocate(gpu_pod("c", 1))["c0"]["nvidia.com/gpu"] == ["2"]
    manager.release("a")
    assert manager.allocate(gpu_pod("b", 2))["c0"]["nvidia.com/gpu"] == ["0", "1"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=20))
def test_no_device_is_ever_held_twice(steps: list[tuple[int, int]]) -> None:
    manager = DeviceManager({"nvidia.com/gpu": ["0", "1", "2", "3"]})
    held: dict[str, list[str]] = {}
    for number, count in steps:
        uid = f"u{number}"
        if uid in held:
            manager.release(uid)
            del held[uid]
            continue
        try:
            grant = manager.allocate(gpu_pod(uid, count))
        except NotEnoughDevices:
            assert sum(map(len, held.values())) + count > 4
            continue
        held[uid] = grant["c0"]["nvidia.com/gpu"]
        assert len(held[uid]) == count
        every = [device for ids in held.values() for device in ids]
        assert len(every) == len(set(every))


def test_what_a_container_is_told_of_its_devices() -> None:
    assert device_env({}) == {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    assert device_env({"example.com/x": ["0"]})["CUDA_VISIBLE_DEVICES"] == ""
    assert device_env({"nvidia.com/gpu": ["1", "3"]}) == {
        "NVIDIA_VISIBLE_DEVICES": "1,3",
        "CUDA_VISIBLE_DEVICES": "1,3",
    }


def test_the_plan_of_nodes() -> None:
    assert (
        plan_nodes({"GPUCLOUD_NODES": "3", "GPUCLOUD_GPUS_PER_NODE": "1"}) == [NodeGPUs(("0",))] * 3
    )
    assert plan_nodes({"GPUCLOUD_NODES": "1"}) == [NodeGPUs(("0", "1"))]
    assert plan_nodes({"GPUCLOUD_GPUS_PER_NODE": "0"}) == [NodeGPUs(())] * 2
    assert NodeGPUs(()).labels() == {}
    for bad in ("x", "-1", "1.5"):
        with pytest.raises(ValueError, match="GPUCLOUD_NODES must be"):
            plan_nodes({"GPUCLOUD_NODES": bad})
