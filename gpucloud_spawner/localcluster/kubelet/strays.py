"""What is left on this machine of pods that the API no longer knows: ended and removed."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from .allocation import saved_state
from .runtime import Instance

log = logging.getLogger(__name__)


async def remove_strays(pods: Path, node: str, known: Collection[str]) -> None:
    """Of this node only: the nodes of one process share the directory."""
    for directory in _directories(pods):
        saved = saved_state(directory)
        if directory.name not in known and saved is not None and saved["node"] == node:
            _kill(directory)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _kill(directory: Path) -> None:
    for container in _directories(directory / "containers"):
        for attempt in _directories(container):
            instance = Instance(attempt, lambda: None)
            instance.adopt()
            if instance.running:
                log.info("%s: ending a process of a pod that no longer exists", attempt)
                instance.kill_tree()
            instance.release()


def _directories(path: Path) -> Iterable[Path]:
    return (entry for entry in path.glob("*") if entry.is_dir())
