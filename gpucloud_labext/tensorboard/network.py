"""A network of its own for this process, with nothing but a loopback.

TensorBoard's fast reader is a program beside it that listens on a loopback port without a password.
In a network namespace of their own nobody else on the host reaches that port: on a shared host
(the local cluster) the pods of other people otherwise could. Unix sockets in the file system work
across namespaces, so the server's proxy still reaches TensorBoard.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x1 | 0x40


def isolate() -> bool:
    """Leave the host's network; whether that was possible. To be called before threads start.

    Sockets that are open stay usable. Containers often may not do this; pods of a real cluster
    need not either: they have a loopback of their own (`TensorBoards.private_loopback`).
    """
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        return False
    # an unprivileged user may do it in a user namespace, where the machine allows those
    if unshare(CLONE_NEWNET) != 0 and not _as_user(unshare):
        return False
    try:
        _loopback_up()
    except OSError:
        # no loopback at all: nothing reaches TensorBoard's parts, TensorBoard neither
        return False
    return True


def _as_user(unshare: ctypes._NamedFuncPointer) -> bool:
    uid, gid = os.getuid(), os.getgid()
    if unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    own = Path("/proc/self")
    try:
        (own / "setgroups").write_text("deny")
        (own / "gid_map").write_text(f"{gid} {gid} 1")
        (own / "uid_map").write_text(f"{uid} {uid} 1")
    except OSError:
        return False
    return True


def _loopback_up() -> None:
    request = struct.pack("16sh22x", b"lo", IFF_UP_RUNNING)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
