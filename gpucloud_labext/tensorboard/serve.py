"""One real TensorBoard as a process of its own, listening on a Unix socket.

Started by `instance`, never by hand. It ends when its standard input does, so also when the Jupyter
server was killed; what it has started itself ends in the same way. TensorBoard's own package is
used through what it offers for this: `program.TensorBoard` with a server class and a page of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import network

PROJECTOR = "projector_config.pbtxt"
# entries of a log directory that are looked through for it
LOOK_AT_MOST = 20_000


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = _options()
    mirror = _start_mirror(options) if options.s3 else None
    fast = options.fast == "yes" or (options.fast == "auto" and network.isolate())
    if mirror is not None:
        needs_tensorflow = _first_listing(mirror)
    else:
        needs_tensorflow = _has_projector(options.logdir)
    _choose_tensorflow(needs_tensorflow)
    _quick_checksums()
    board = _board(options, fast)
    ending = threading.Event()
    if mirror is not None:
        threading.Thread(target=_end_with, args=(mirror, ending), daemon=True).start()
    try:
        board.launch()
    except OSError as error:
        sys.exit(f"TensorBoard could not listen on {options.socket}: {error}")
    while os.read(0, 4096):
        pass
    ending.set()
    if mirror is not None:
        mirror.kill()
        mirror.wait()
    _clear(Path(options.socket).parent)
    os._exit(0)


def _clear(folder: Path) -> None:
    """Nothing is left on the disk, also where the server was killed: copies from S3 may be big."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are others
        folder.parent.rmdir()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--logdir", type=Path, required=True)
    parser.add_argument("--title", required=True)
    parser.add_argument("--s3", help="JSON for mirror.py: what to copy to the log directory")
    parser.add_argument("--fast", choices=("auto", "yes", "no"), default="auto")
    parser.add_argument("--reload-seconds", type=int, default=5)
    parser.add_argument("--samples-per-plugin", default="")
    return parser.parse_args()


# --- S3 ---


def _start_mirror(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """A process of its own: it needs the network that this one leaves."""
    command = [sys.executable, "-P", "-m", "gpucloud_labext.tensorboard.mirror"]
    command += ["--to", str(options.logdir), "--what", options.s3]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end_with(mirror: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """Where it ends before us, so do we: charts would stand still, and nobody would know why."""
    code = mirror.wait()
    if not ending.is_set():
        words = f"The copying from S3 has ended by itself (exit code {code})."
        print(words, file=sys.stderr, flush=True)
        os._exit(1)


def _first_listing(mirror: subprocess.Popen[bytes]) -> bool:
    """Wait until the mirror knows what there is; whether a projector is among it."""
    assert mirror.stdout is not None
    said = mirror.stdout.readline()
    if not said:  # it has written why to our standard error
        sys.exit(1)
    return bool(json.loads(said)["projector"])


# --- TensorFlow: only where it is needed ---


def _has_projector(logdir: Path) -> bool:
    seen = 0
    for _, folders, files in os.walk(logdir):
        if PROJECTOR in files:
            return True
        seen += len(folders) + len(files)
        if seen > LOOK_AT_MOST:
            break
    return False


def _choose_tensorflow(needed: bool) -> None:
    """Without TensorFlow, TensorBoard starts in a quarter of the time and memory, and no GPU is
    touched; only the projector's checkpoints need it. This is TensorBoard's own switch, the module
    that its build target `no_tensorflow` has."""
    if needed and importlib.util.find_spec("tensorflow") is not None:
        return
    name = "tensorboard.compat.notf"
    sys.modules[name] = types.ModuleType(name)


def _quick_checksums() -> None:
    """Without TensorFlow, TensorBoard sums up CRC32C in Python, at 5 MB/s; in C it is 200."""
    from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

    try:
        from google_crc32c import value
    except ImportError:
        return
    quick: Callable[[bytes], int] = value
    pywrap_tensorflow.crc32c = quick


# --- TensorBoard ---


def _board(options: argparse.Namespace, fast: bool) -> Any:
    from tensorboard import default, program

    from . import listen

    board = program.TensorBoard(
        plugins=default.get_plugins(),
        server_class=listen.on(options.socket),
    )
    flags = {
        "logdir": str(options.logdir),
        "load_fast": "auto" if fast else "false",
        "reload_interval": options.reload_seconds,
        "window_title": options.title,
    }
    if options.samples_per_plugin:
        board.configure(("", f"--samples_per_plugin={options.samples_per_plugin}"), **flags)
    else:
        board.configure(("",), **flags)
    return board


if __name__ == "__main__":
    main()
