"""Where a container finds its volumes.

A process without a container sees the machine's own file system, and a mount cannot be put at its
path there. The same rule everywhere, with or without rights on the machine:
- the mount at the image's home (/home/jovyan) is the container's HOME and working directory; with
  no such mount that is a directory of the pod's own;
- a mount below the home is a link in it; any other lies under $GPUCLOUD_MOUNTS at its path;
- the pod's own /etc/hosts (see `hosts`) and the file of the termination message count as mounts,
  unless the pod mounts something there itself;
- wherever the command, the arguments, the environment or an exec probe name a mounted path (also
  inside a longer text such as `--dir=/data/x` or a shell line), they get the real path instead.
Read-only mounts are not enforced. How the volumes themselves are made is in `volumes`.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .hosts import FILE as HOSTS_FILE
from .volumes import inside

log = logging.getLogger(__name__)
Obj = dict[str, Any]
MESSAGE_PATH = "/dev/termination-log"


class View:
    """What one container sees: its HOME, and the real path of every mounted one."""

    def __init__(self, home: Path, image_home: str, paths: Mapping[str, Path]) -> None:
        self.home = home
        self.paths = {image_home.rstrip("/"): home, **paths}
        names = "|".join(re.escape(path) for path in sorted(self.paths, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![\w./-])({names})(?![\w.-])")
        self.links: dict[Path, Path] = {}  # in the home, to the volume that each stands for

    def translate(self, text: str) -> str:
        """The text with every mounted path in it replaced by the real one."""
        return self._pattern.sub(lambda match: str(self.paths[match[1]]), text)

    def close(self) -> None:
        """Takes our links out of the home, which may be a volume that stays. What its user has put
        in the place of one is left alone."""
        for link, target in self.links.items():
            with contextlib.suppress(OSError):
                if link.readlink() == target:
                    link.unlink()


def container_view(
    pod_dir: Path, container: Obj, image_home: str, volumes: Mapping[str, Path]
) -> View:
    """Lays a container's mounts out by the rule above."""
    paths: dict[str, Path] = {}
    for mount in container.get("volumeMounts") or []:
        source = volumes[mount["name"]]
        if sub := mount.get("subPath"):
            source = inside(source, sub)
            if not source.exists():
                source.mkdir(parents=True)
        paths[_absolute(mount["mountPath"])] = source
    home = paths.pop(image_home, None) or pod_dir / "home" / container["name"]
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    report = pod_dir / "containers" / container["name"] / "termination-log"
    report.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    message_path = container.get("terminationMessagePath") or MESSAGE_PATH
    for path, file in (("/etc/hosts", pod_dir / HOSTS_FILE), (message_path, report)):
        if not any(PurePosixPath(path).is_relative_to(mounted) for mounted in paths):
            paths[path] = file
    view = View(home, image_home, {message_path: report, **paths})
    for path, source in paths.items():
        nested = PurePosixPath(path).is_relative_to(image_home)
        base = home if nested else mounts_dir(pod_dir, container["name"])
        link = base / PurePosixPath(path).relative_to(image_home if nested else "/")
        if _link(link, source, pod_dir.parents[1]) and nested:
            view.links[link] = source
    return view


def _absolute(path: str) -> str:
    """As a container runtime reads it: relative to the root, and `..` does not lead out of that."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def mounts_dir(pod_dir: Path, container: str) -> Path:
    """Where the mounts outside of the home are found, at their paths ($GPUCLOUD_MOUNTS)."""
    return pod_dir / "mounts" / container


def _link(link: Path, target: Path, data: Path) -> bool:
    with contextlib.suppress(OSError):
        # An earlier pod's ends where the kubelet keeps volumes; any other one is a user's.
        if link.is_symlink() and data in link.readlink().parents:
            link.unlink()
        elif link.is_dir():
            link.rmdir()  # only if empty: a user's own files are never removed
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        return True
    log.warning("%s exists: the volume mounted there is only found at %s", link, target)
    return False
