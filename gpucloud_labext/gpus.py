"""The GPUs of this pod, as NVIDIA's driver tells: memory, utilisation, who uses them.

Only what this pod was given, and nothing that nobody measured: what the driver does not tell is
null, and a driver that does not answer is said, not raised. Calls of NVML block, and may hang where
a device has failed, so they run in a thread of their own, one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NO_GPU = "No GPU in this profile"
SIMULATED = "The GPUs of this cluster are simulated: they have no memory and no load to measure."
# What one reading may take until the driver counts as hung, and how long it is as good as new.
PATIENCE_SECONDS = 5.0
FRESH_SECONDS = 1.0
_NOTHING = ("", "void", "none")


@dataclass(frozen=True)
class Process:
    """A process on a device; ``command`` is "" for one that is not in this pod."""

    pid: int
    memory_bytes: int | None
    command: str


@dataclass(frozen=True)
class Device:
    """One GPU, or one MIG slice of one. None: nobody tells."""

    index: int
    uuid: str
    name: str
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_percent: int | None = None
    processes: list[Process] = field(default_factory=list)
    simulated: bool = False


@dataclass(frozen=True)
class Reading:
    """All devices of this pod at one moment, or why there are none."""

    message: str | None
    devices: list[Device] = field(default_factory=list)

    @property
    def utilization(self) -> int | None:
        """That of the busiest device."""
        known = [d.utilization_percent for d in self.devices if d.utilization_percent is not None]
        return max(known, default=None)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


def granted(environment: Mapping[str, str]) -> int | None:
    """How many GPUs the profile of this server has; None where nobody said."""
    text = environment.get("GPUCLOUD_GPUS", "")
    return int(text) if text.isdecimal() else None


def read(environment: Mapping[str, str] = os.environ) -> Reading:
    """Ask the driver. Blocks; see `Reader` for an event loop."""
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip() not in _NOTHING]
    count = granted(environment)
    if count == 0 or (count is None and visible in _NOTHING[1:]):
        return Reading(NO_GPU)
    if _is_local_cluster(environment):
        if not names:
            return Reading(NO_GPU)
        if all(name.isdecimal() for name in names):
            # its real GPUs have UUIDs
            devices = [
                Device(index, name, "Simulated GPU", simulated=True)
                for index, name in enumerate(names)
            ]
            return Reading(SIMULATED, devices)
    # on Kubernetes the driver sees only this pod's devices, whatever the variable says: with CDI or
    # mounted device lists it is "void" or a path
    wanted = {name for name in names if name.startswith(("GPU-", "MIG-"))}
    return _ask_driver(wanted, expected=bool(count or wanted))


def _is_local_cluster(environment: Mapping[str, str]) -> bool:
    # its pods, and no others, have loopback addresses
    try:
        return ipaddress.ip_address(environment.get("POD_IP", "")).is_loopback
    except ValueError:
        return False


def _ask_driver(wanted: set[str], expected: bool) -> Reading:
    try:
        import pynvml
    except ImportError:
        return Reading("The GPUs cannot be looked at: the package nvidia-ml-py is not installed.")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if not expected:
            return Reading(NO_GPU)
        return Reading(f"NVIDIA's driver does not answer: {error}")
    try:
        devices: list[Device] = []
        failed: list[str] = []
        for handle in _handles(pynvml, failed):
            device = _device(pynvml, len(devices), handle)
            if not wanted or device.uuid in wanted:
                devices.append(device)
    except pynvml.NVMLError as error:
        return Reading(f"NVIDIA's driver does not answer: {error}")
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    if failed:
        return Reading("; ".join(failed), devices)
    if not devices:
        return Reading("The driver shows none of this server's GPUs." if expected else NO_GPU)
    return Reading(None, devices)


def _handles(nvml: Any, failed: list[str]) -> Iterator[Any]:
    """The devices that the driver shows; of one that is divided (MIG), its slices.

    Those that it cannot reach are told in ``failed``.
    """
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            whole = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            failed.append(f"GPU {index} does not answer: {error}")
            continue
        try:
            divided = nvml.nvmlDeviceGetMigMode(whole)[0] == nvml.NVML_DEVICE_MIG_ENABLE
        except nvml.NVMLError:  # a device without MIG
            divided = False
        if not divided:
            yield whole
            continue
        for part in range(nvml.nvmlDeviceGetMaxMigDeviceCount(whole)):
            # a place without a slice, or with that of another pod
            with contextlib.suppress(nvml.NVMLError):
                yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, part)


def _device(nvml: Any, index: int, handle: Any) -> Device:
    memory = _tell(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _tell(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)  # not of a MIG slice
    return Device(
        index=index,
        uuid=_text(_tell(nvml, nvml.nvmlDeviceGetUUID, handle) or ""),
        name=_text(_tell(nvml, nvml.nvmlDeviceGetName, handle) or "GPU"),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        utilization_percent=None if rates is None else int(rates.gpu),
        processes=_processes(nvml, handle),
    )


def _processes(nvml: Any, handle: Any) -> list[Process]:
    found: dict[int, Process] = {}
    for ask in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        for process in _tell(nvml, ask, handle) or ():
            used = process.usedGpuMemory
            pid = int(process.pid)
            found[pid] = Process(pid, None if used is None else int(used), command_of(pid))
    return [found[pid] for pid in sorted(found)]


def _tell(nvml: Any, ask: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return ask(handle)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):  # the latter: by an old driver
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def command_of(pid: int) -> str:
    """The command line of ``pid``, or "".

    NVML tells the numbers of the machine, which in a container may be those of another process:
    only one that has a GPU open is meant.
    """
    folder = Path("/proc") / str(pid)
    try:
        opened = (str(link.readlink()) for link in (folder / "fd").iterdir())
        if not any(target.startswith("/dev/nvidia") for target in opened):
            return ""
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or it is somebody else's
        return ""
    return b" ".join(words).decode(errors="replace").strip()[:200]


class Reader:
    """Reads for an event loop. A reading that hangs holds nobody up, and is not begun twice."""

    def __init__(self, ask: Callable[[], Reading] = read, patience: float = PATIENCE_SECONDS):
        self._ask = ask
        self._patience = patience
        self._running: asyncio.Future[Reading] | None = None
        self._last: Reading | None = None
        self._read_at = 0.0

    async def read(self) -> Reading:
        """What the GPUs do now, or a second ago."""
        if self._last is not None and time.monotonic() - self._read_at < FRESH_SECONDS:
            return self._last
        if self._running is None:
            self._running = self._begin()
        running = self._running
        await asyncio.wait({running}, timeout=self._patience)
        if not running.done():
            return Reading(
                f"NVIDIA's driver has not answered for {self._patience:.0f} seconds: the device "
                "may have failed. Stop this server and start it again; it may get another GPU."
            )
        if self._running is running:
            self._running = None
            self._last, self._read_at = running.result(), time.monotonic()
        return running.result()

    def _begin(self) -> asyncio.Future[Reading]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Reading] = loop.create_future()

        def work() -> None:
            try:
                reading = self._ask()
            except Exception as error:  # noqa: BLE001 - a thread's border: nobody else would tell
                reading = Reading(f"The GPUs cannot be looked at: {error}")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_set, result, reading)

        # a daemon: a hung driver must not keep the server from ending
        threading.Thread(target=work, name="gpucloud-nvml", daemon=True).start()
        return result


def _set(result: asyncio.Future[Reading], reading: Reading) -> None:
    if not result.done():
        result.set_result(reading)
