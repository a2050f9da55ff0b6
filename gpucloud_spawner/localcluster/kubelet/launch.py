"""What one container is started with: its view of the volumes, environment, working directory and
command line. Nothing is started here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..gpus import device_env
from .environment import ConfigError, Lookup, container_argv, container_env
from .images import Image
from .view import MESSAGE_PATH, View, container_view, mounts_dir

Obj = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What the pod has ready for one of its containers."""

    pod: Obj
    volumes: Mapping[str, Path]
    devices: Mapping[str, list[str]]
    lookup: Lookup


@dataclass(frozen=True)
class Launch:
    """All that a container's process gets."""

    view: View
    argv: list[str]
    env: dict[str, str]
    cwd: Path


async def prepare(
    inputs: Inputs, container: Obj, image: Image, pod_dir: Path, allocatable: Mapping[str, str]
) -> Launch:
    """Raises ConfigError or MountError where something that the container names is not there."""
    pod, lookup = inputs.pod, inputs.lookup
    view = container_view(pod_dir, container, image.home, inputs.volumes)
    env = await container_env(pod, container, image, str(view.home), lookup, allocatable)
    env = {name: view.translate(value) for name, value in env.items()}
    env.setdefault("GPUCLOUD_MOUNTS", str(mounts_dir(pod_dir, container["name"])))
    report = container.get("terminationMessagePath") or MESSAGE_PATH
    env.setdefault("GPUCLOUD_TERMINATION_LOG", view.translate(report))
    cwd = view.home
    if wanted := container.get("workingDir"):
        cwd = Path(view.translate(wanted))
        if not cwd.is_dir():
            raise ConfigError(
                f"workingDir {wanted} is neither a directory nor a mount of the container"
            )
    env |= device_env(inputs.devices)  # after the pod's own: what it says itself does not count
    argv = [view.translate(text) for text in container_argv(container, image, env)]
    return Launch(view, argv, env, cwd)
