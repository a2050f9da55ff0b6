"""Which images the local cluster knows, and what each brings along.

There is no registry here: a known image means the Python environment that runs the kubelet, under
the image's name. The patterns come from the command line; anything else is an unknown image.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

DEFAULT_PATTERNS = (
    "gpucloud/*",
    "*/k8s-singleuser-sample:*",
    "quay.io/jupyterhub/*",
    "quay.io/jupyter/*",
    "jupyterhub/*",
    "jupyter/*",
    "example.org/*",
    "busybox*",
    "python:*",
)
# The first that matches gives the default command; the rest start a notebook server.
COMMANDS = (("busybox*", ("sh",)), ("python:*", ("python3",)))
NOTEBOOK = ("jupyterhub-singleuser",)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_REFERENCE = re.compile("[A-Za-z0-9][A-Za-z0-9._/:@-]{0,510}")


class UnknownImage(Exception):
    """The message says which images there are and how to add one."""


class InvalidImage(Exception):
    """What is no image name at all: no attempt will ever help."""


@dataclass(frozen=True)
class Image:
    """What an image contributes to a container."""

    name: str
    identity: str
    command: tuple[str, ...]
    home: str = "/home/jovyan"
    env: dict[str, str] = field(default_factory=dict)


class ImageStore:
    """The known images, by shell patterns; a name without a tag also matches as NAME:latest."""

    def __init__(self, patterns: Sequence[str] = DEFAULT_PATTERNS) -> None:
        self.patterns = tuple(patterns)

    def get(self, name: str) -> Image:
        if not _REFERENCE.fullmatch(name):
            raise InvalidImage(
                f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": '
                "invalid reference format"
            )
        tagged = name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"
        if not any(fnmatchcase(n, p) for p in self.patterns for n in (name, tagged)):
            raise UnknownImage(
                f'failed to pull and unpack image "{tagged}": the local cluster has no registry. '
                f"It knows the images {', '.join(self.patterns)}, which all run its own Python "
                "environment; add yours with --image PATTERN"
            )
        command = next((c for p, c in COMMANDS if fnmatchcase(tagged, p)), NOTEBOOK)
        digest = hashlib.sha256(tagged.encode()).hexdigest()
        environment = Path(sys.executable).parent  # not resolved: a virtualenv's is a link
        env = {"PATH": f"{environment}:{SYSTEM_PATH}", "LANG": "C.UTF-8"}
        return Image(tagged, f"sha256:{digest}", command, env=env)
