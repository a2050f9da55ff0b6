"""The parent of one container: outlives the kubelet, keeps the log, knows the true exit code.

What containerd-shim is to containerd. Runs by itself under `python -I -S` and imports nothing
of this package and no slow module: one of these is started for, and stays beside, every container.

- stdin: `marshal` of {argv, env, cwd, dir, umask}: never a file, for env holds secrets.
- It is a child subreaper: all that the container leaves behind, also in sessions of its own
  (Jupyter kernels), comes back to it and is killed when the container's main process ends.
- Output becomes lines "TIME STREAM TAG TEXT" in DIR/log, in the CRI's log format, rotated once.
- DIR/started: "PID START_TICKS TIME"; DIR/exit: "CODE TIME REASON MESSAGE", each written whole.
- stdout: closed after one of the two exists, which tells the kubelet to look.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import select
import signal
import sys
import time

if False:  # typing is slow to import
    from typing import Any

LOG_BYTES = 10 * 1024 * 1024
LINE_BYTES = 16 * 1024  # longer lines are split and tagged P, as containerd does
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
prctl = ctypes.CDLL(None, use_errno=True).prctl


def stamp() -> str:
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}Z"


def write_whole(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:  # noqa: PTH123 - pathlib is slow to import
        file.write(text)
    os.replace(path + ".new", path)  # noqa: PTH105


class Log:
    """Turns the container's output into log lines."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.partial: dict[int, bytes] = {}
        self.streams: dict[int, str] = {}
        self.fd = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self.streams[fd] = stream
        self.partial[fd] = b""

    def read(self, fd: int) -> bool:
        """Takes what is there; False once the stream has ended."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return True
        now = stamp()
        *lines, rest = (self.partial[fd] + data).split(b"\n")
        self.partial[fd] = rest
        for line in lines:
            self._write(fd, now, line, "F")
        while len(self.partial[fd]) >= LINE_BYTES or (self.partial[fd] and not data):
            head, self.partial[fd] = self.partial[fd][:LINE_BYTES], self.partial[fd][LINE_BYTES:]
            self._write(fd, now, head, "P")
        return bool(data)

    def _write(self, fd: int, now: str, line: bytes, tag: str) -> None:
        while len(line) > LINE_BYTES:
            self._write(fd, now, line[:LINE_BYTES], "P")
            line = line[LINE_BYTES:]
        try:
            os.write(self.fd, f"{now} {self.streams[fd]} {tag} ".encode() + line + b"\n")
            if os.fstat(self.fd).st_size > LOG_BYTES:
                os.replace(self.path, self.path + ".1")  # noqa: PTH105
                os.close(self.fd)
                self.fd = self._open()
        except OSError:  # a full disk loses log lines, never the container
            pass


def launch(spec: dict[str, Any], outputs: tuple[int, int], failure: int) -> None:
    """In the forked child: becomes the container's main process, or reports why it cannot."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        for name in ("SIGPIPE", "SIGTERM", "SIGINT", "SIGHUP", "SIGCHLD", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
            os.dup2(source, target)
        os.chdir(spec["cwd"])
        os.umask(spec["umask"])
        os.execve(spec["argv"][0], spec["argv"][1], spec["env"])
    except OSError as error:
        os.write(failure, f"{error.strerror}: {error.filename or ''}".encode())
    except ValueError as error:  # a NUL in an argument or a variable
        os.write(failure, f"invalid argument: {error}".encode())
    finally:
        os._exit(127)


def start_ticks(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[19]


def children() -> list[int]:
    """Direct children, found in /proc: the kernel offers no cheaper way that is always there."""
    me, found = str(os.getpid()), []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                    parent = file.read().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if parent == me:
                found.append(int(name))
    return found


def reap(main: int) -> int | None:
    """Collects the dead; the main process's wait status if it was among them."""
    status = None
    while True:
        try:
            pid, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == main:
            status = code


def end_descendants() -> None:
    """As the death of a PID namespace's init: each kill hands us the next generation."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        for child in children():
            try:  # noqa: SIM105 - contextlib is slow to import
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def follow(main: int, log: Log, wakeup: int) -> int:
    """Copies output until the main process has ended and nothing of it is left."""
    poll = select.poll()
    for fd in (wakeup, *log.streams):
        poll.register(fd, select.POLLIN)
    status = None
    while status is None:
        for fd, _ in poll.poll():
            if fd != wakeup and not log.read(fd):
                poll.unregister(fd)
            elif fd == wakeup:
                os.read(wakeup, 4096)
        status = reap(main)
    end_descendants()
    for fd in log.streams:
        while log.read(fd):
            try:
                if not select.select([fd], [], [], 0)[0]:
                    break
            except OSError:
                break
        if log.partial[fd]:
            log._write(fd, stamp(), log.partial[fd], "P")
    return status


def main() -> None:
    spec = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - our parent's own words
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup, wake = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    (out, out_w), (err, err_w), (failed, failed_w) = os.pipe(), os.pipe(), os.pipe()
    log = Log(spec["dir"] + "/log")
    pid = os.fork()
    if pid == 0:
        launch(spec, (out_w, err_w), failed_w)
    for fd in (out_w, err_w, failed_w):
        os.close(fd)
    spec["env"] = None
    failure = os.read(failed, 4096).decode(errors="replace")
    if failure:
        write_whole(spec["dir"] + "/exit", f"128 {stamp()} StartError {failure}")
        return
    os.close(failed)
    write_whole(spec["dir"] + "/started", f"{pid} {start_ticks(pid)} {stamp()}")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # the kubelet sees the end of its pipe
    log.add(out, "stdout")
    log.add(err, "stderr")
    status = follow(pid, log, wakeup)
    code = os.waitstatus_to_exitcode(status)
    write_whole(spec["dir"] + "/exit", f"{code if code >= 0 else 128 - code} {stamp()} - ")


if __name__ == "__main__":
    main()
