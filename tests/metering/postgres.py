"""A PostgreSQL server of our own for tests: temporary directory, unix socket, unprivileged user."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

_NAMES = itertools.count(1)


def find_binaries() -> Path | None:
    """The directory of initdb and postgres (Debian hides them from the PATH)."""
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for directory in candidates:
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    return None


def _unprivileged() -> dict[str, int]:
    """postgres refuses to run as root: arguments of subprocess for another user."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise RuntimeError("no unprivileged user to run PostgreSQL as")


class PostgresServer:
    """Start, stop, restart and kill one server; each test gets a database of its own."""

    def __init__(self, binaries: Path, **options: str) -> None:
        self._binaries = binaries
        self._options = options
        self._user = _unprivileged()
        self.directory = Path(tempfile.mkdtemp(prefix="gpucloud-pg-"))
        if self._user:
            os.chown(self.directory, self._user["user"], self._user["group"])
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", "data", "-U", "ledger", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self.directory,
            check=True,
            capture_output=True,
            **self._user,
        )

    def start(self) -> None:
        """Returns once connections are accepted."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "max_connections": "40",
            "fsync": "off",  # these tests do not cut the machine's power
            **self._options,
        }
        arguments = [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", "data", *arguments],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                **self._user,
            )
        ready = [self._binaries / "pg_isready", "-h", self.directory, "-q", "-t", "20"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None:
                raise RuntimeError((self.directory / "log").read_text())

    def crash(self) -> None:
        """End the server at once, as a power cut would: the next start recovers from its log."""
        if self._process is not None:
            # not SIGKILL, which would leave its children and shared memory behind
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to the server and all its children, as the kernel does when memory runs out."""
        if self._process is not None:
            family = psutil.Process(self._process.pid).children(recursive=True)
            for process in (self._process, *family):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(30)
            psutil.wait_procs(family, timeout=30)
            self._process = None

    def remove(self) -> None:
        self.crash()
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(_NAMES)}"
        self._run("psql", "-h", str(self.directory), "-U", "ledger", "-d", "postgres", "-qc",
                  f"CREATE DATABASE {name}")  # fmt: skip
        return f"postgresql+psycopg://ledger@/{name}?host={self.directory}"
