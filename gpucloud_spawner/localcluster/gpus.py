"""The devices of the nodes: fake or real GPUs, other extended resources, and who holds which.

Fake GPUs are numbers; real ones are found with NVML. A device belongs to one pod for that pod's
life. Nothing here limits what a process can reach: the environment only tells well-behaved
libraries (CUDA, TensorFlow) what they were granted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .scheduling import Obj, is_extended

log = logging.getLogger(__name__)
GPU = "nvidia.com/gpu"
DEFAULT_NODES, DEFAULT_GPUS = 2, 2
FAKE_PRODUCT, FAKE_MEMORY_MIB = "NVIDIA-FAKE-GPU", 16384


@dataclass(frozen=True)
class NodeGPUs:
    """The GPUs of one node; `ids` are what CUDA_VISIBLE_DEVICES understands."""

    ids: tuple[str, ...]
    product: str = FAKE_PRODUCT
    memory_mib: int = FAKE_MEMORY_MIB

    def labels(self) -> dict[str, str]:
        """The node labels of NVIDIA's gpu-feature-discovery."""
        if not self.ids:
            return {}
        return {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": self.product,
            "nvidia.com/gpu.count": str(len(self.ids)),
            "nvidia.com/gpu.memory": str(self.memory_mib),
        }


def plan_nodes(env: Mapping[str, str]) -> list[NodeGPUs]:
    """The nodes to run: as GPUCLOUD_NODES and GPUCLOUD_GPUS_PER_NODE say; with neither, one node
    with the machine's NVIDIA GPUs, or the default number of fake ones where it has none."""
    nodes, gpus = env.get("GPUCLOUD_NODES"), env.get("GPUCLOUD_GPUS_PER_NODE")
    if not nodes and not gpus and (real := real_gpus()):
        return [real]
    count = _number("GPUCLOUD_NODES", nodes, DEFAULT_NODES, least=1)
    each = _number("GPUCLOUD_GPUS_PER_NODE", gpus, DEFAULT_GPUS, least=0)
    return [NodeGPUs(tuple(str(index) for index in range(each)))] * count


def _number(name: str, text: str | None, default: int, least: int) -> int:
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {text!r}")
    return int(text)


def real_gpus() -> NodeGPUs | None:
    """This machine's NVIDIA GPUs, or None without a driver or the nvidia-ml-py package."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        if not handles:
            return None
        # One product per node, as gpu-feature-discovery labels it: that of the first GPU.
        product = _text(pynvml.nvmlDeviceGetName(handles[0])).replace(" ", "-")
        memory = pynvml.nvmlDeviceGetMemoryInfo(handles[0]).total // 2**20
        return NodeGPUs(tuple(_text(pynvml.nvmlDeviceGetUUID(h)) for h in handles), product, memory)
    except pynvml.NVMLError as error:
        log.warning("NVML: %s; no real GPUs are offered", error)
        return None
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class NotEnoughDevices(Exception):
    """The node's devices are taken: the scheduler's view and ours differ."""

    def __init__(self, resource: str, wanted: int, used: int, capacity: int) -> None:
        super().__init__(resource)
        self.resource, self.wanted, self.used, self.capacity = resource, wanted, used, capacity


Grant = dict[str, dict[str, list[str]]]  # container -> resource -> device ids


class DeviceManager:
    """Which pod of this node holds which device."""

    def __init__(self, devices: Mapping[str, Sequence[str]]) -> None:
        self.devices = {name: list(ids) for name, ids in devices.items()}
        self._held: dict[str, Grant] = {}

    def restore(self, uid: str, grant: Grant) -> None:
        """Takes over what a pod was granted before a restart."""
        self._held[uid] = grant

    def release(self, uid: str) -> None:
        self._held.pop(uid, None)

    def allocate(self, pod: Obj) -> Grant:
        """Devices for each container of a pod; the same ones if it asks again."""
        uid = pod["metadata"]["uid"]
        if uid in self._held:
            return self._held[uid]
        spec = pod["spec"]
        grant: Grant = {}
        pool: dict[str, list[str]] = {}
        for container in spec.get("containers") or []:
            for name, count in _wanted(container).items():
                ids = self._take(name, count, pool)
                grant.setdefault(container["name"], {})[name] = ids
        for container in spec.get("initContainers") or []:
            # They run before the others, on the others' devices, and may need some more.
            for name, count in _wanted(container).items():
                have = pool.setdefault(name, [])
                if count > len(have):
                    self._take(name, count - len(have), pool)
                grant.setdefault(container["name"], {})[name] = pool[name][:count]
        self._held[uid] = grant
        return grant

    def _take(self, name: str, count: int, pool: dict[str, list[str]]) -> list[str]:
        all_ids = self.devices.get(name, [])
        taken = {
            device
            for grant in self._held.values()
            for resources in grant.values()
            for device in resources.get(name, ())
        }
        mine = pool.setdefault(name, [])
        free = [device for device in all_ids if device not in taken and device not in mine]
        if len(free) < count:
            raise NotEnoughDevices(name, count, len(taken) + len(mine), len(all_ids))
        mine.extend(free[:count])
        return free[:count]


def _wanted(container: Obj) -> dict[str, int]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: int(text) for name, text in asked.items() if is_extended(name)}


def device_env(resources: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What NVIDIA's container runtime would set, and the variable that CUDA itself reads. A pod
    without a GPU is told that there is none, also on a machine that has some."""
    ids = [
        id_ for name, held in resources.items() if name.startswith("nvidia.com/") for id_ in held
    ]
    if not ids:
        return {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    return {"NVIDIA_VISIBLE_DEVICES": ",".join(ids), "CUDA_VISIBLE_DEVICES": ",".join(ids)}
