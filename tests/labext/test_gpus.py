"""The GPUs of a pod: only its own, only what a driver measured. The driver is a library of ours in
the place of NVIDIA's; nvidia-ml-py is the real one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gpucloud_labext.gpus import NO_GPU, Device, Reader, Reading, read

KUBERNETES = {"POD_IP": "10.2.3.4", "GPUCLOUD_GPUS": "2"}
SCRIPT = "import json; from gpucloud_labext import gpus; print(json.dumps(gpus.read().as_data()))"


def build(folder: Path, *flags: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder.mkdir()
    source = Path(__file__).parent / "nvml.c"
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", *flags, "-o", str(library), str(source)], check=True
    )
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml") / "new")


def ask(driver: Path, mode: str, script: str = SCRIPT, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(driver),
            "FAKE_NVML": mode,
            "FAKE_PID": str(os.getpid()),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_memory_load_and_processes_of_each_device(driver: Path) -> None:
    found = ask(driver, "two", **KUBERNETES, NVIDIA_VISIBLE_DEVICES="GPU-1,GPU-2")
    assert found["message"] is None
    first, second = found["devices"]
    assert first == {
        "index": 0,
        "uuid": "GPU-1",
        "name": "NVIDIA Test 1",
        "memory_used_bytes": 2**30,
        "memory_total_bytes": 2**34,
        "utilization_percent": 41,
        # neither has a GPU open, so these numbers may mean other processes in this container
        "processes": [
            {"pid": 1, "memory_bytes": None, "command": ""},
            {"pid": os.getpid(), "memory_bytes": 5 * 2**20, "command": ""},
        ],
        "simulated": False,
    }
    assert (second["uuid"], second["processes"]) == ("GPU-2", [])


@pytest.mark.parametrize(
    ("mode", "visible", "uuids"),
    [
        ("two", "GPU-2", ["GPU-2"]),
        ("two", "void", ["GPU-1", "GPU-2"]),  # CDI: the driver shows no others
        ("two", "/var/run/nvidia-container-devices", ["GPU-1", "GPU-2"]),
        ("mig", "MIG-12", ["MIG-12"]),
        ("mig", "all", ["MIG-11", "MIG-12", "GPU-2"]),
    ],
)
def test_only_the_pods_own_devices(driver: Path, mode: str, visible: str, uuids: list[str]) -> None:
    found = ask(driver, mode, **KUBERNETES, NVIDIA_VISIBLE_DEVICES=visible)
    assert [device["uuid"] for device in found["devices"]] == uuids
    assert [device["index"] for device in found["devices"]] == list(range(len(uuids)))


def test_what_a_mig_slice_does_not_tell_is_null(driver: Path) -> None:
    [found] = ask(driver, "mig", **KUBERNETES, NVIDIA_VISIBLE_DEVICES="MIG-11")["devices"]
    assert found["utilization_percent"] is None
    assert found["memory_total_bytes"] == 2**34


def test_a_driver_that_fails_is_said(driver: Path) -> None:
    found = ask(driver, "failed", **KUBERNETES)
    assert found["devices"] == []
    assert found["message"] == "NVIDIA's driver does not answer: Driver Not Loaded"


def test_a_device_that_fails_is_said_and_the_other_shown(driver: Path) -> None:
    found = ask(driver, "lost", **KUBERNETES)
    assert found["message"] == "GPU 0 does not answer: GPU is lost"
    assert [device["uuid"] for device in found["devices"]] == ["GPU-2"]


def test_an_old_driver_tells_no_processes_but_the_rest(tmp_path: Path) -> None:
    old = build(tmp_path / "old", "-DOLD")
    found = ask(old, "two", **KUBERNETES)
    assert [device["processes"] for device in found["devices"]] == [[], []]
    assert found["devices"][1]["utilization_percent"] == 42


def test_a_hung_driver_holds_nobody_up_and_lets_the_server_end(driver: Path) -> None:
    script = (
        "import asyncio, json; from gpucloud_labext.gpus import Reader\n"
        "async def main():\n"
        "    reader = Reader(patience=0.3)\n"
        "    first, second = await asyncio.gather(reader.read(), reader.read())\n"
        "    print(json.dumps([first.message, second.devices]))\n"
        "asyncio.run(main())"
    )
    message, devices = ask(driver, "hang", script, **KUBERNETES)
    assert "has not answered" in message
    assert devices == []


@pytest.mark.parametrize(
    "environment",
    [
        {"GPUCLOUD_GPUS": "0", "NVIDIA_VISIBLE_DEVICES": "all"},
        {"GPUCLOUD_GPUS": "0", "POD_IP": "127.0.0.5"},
        {"POD_IP": "127.0.0.5", "NVIDIA_VISIBLE_DEVICES": "void"},
        {"NVIDIA_VISIBLE_DEVICES": "void"},
    ],
)
def test_a_profile_without_gpus_says_so(environment: dict[str, str]) -> None:
    assert read(environment) == Reading(NO_GPU)


def test_simulated_gpus_have_no_invented_numbers() -> None:
    pod = {"POD_IP": "127.0.0.5", "GPUCLOUD_GPUS": "2", "NVIDIA_VISIBLE_DEVICES": "0,3"}
    found = read(pod)
    assert "simulated" in (found.message or "")
    assert [device.uuid for device in found.devices] == ["0", "3"]
    for device in found.devices:
        numbers = (device.memory_used_bytes, device.memory_total_bytes, device.utilization_percent)
        assert numbers == (None, None, None)
        assert device.simulated
    assert found.utilization is None


async def test_many_panels_ask_the_driver_once() -> None:
    asked = []
    go = threading.Event()

    def slowly() -> Reading:
        asked.append(1)
        go.wait(10)
        return Reading(None, [Device(0, "GPU-1", "x", utilization_percent=7)])

    reader = Reader(slowly)
    waiting = [asyncio.create_task(reader.read()) for _ in range(5)]
    while not asked:
        await asyncio.sleep(0.01)
    go.set()
    assert {reading.utilization for reading in await asyncio.gather(*waiting)} == {7}
    await reader.read()
    assert asked == [1]
