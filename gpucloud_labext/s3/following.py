"""botocore with a key that follows the mounted file, so that a renewed key needs no restart.

botocore reads variables and files once per session and keeps what it found. Here the credentials
of a session look at the file before each signature (a stat: microseconds). `install` gives them to
every session of a process that would use the pod's key, also through `boto3.client("s3")`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

from botocore.credentials import (
    CredentialProvider,
    Credentials,
    EnvProvider,
    ReadOnlyCredentials,
)

from .keys import KeyFile, Keys


class FileCredentials(Credentials):
    """The key of a file, as it is at the moment of each request."""

    def __init__(self, file: KeyFile, keys: Keys) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stamp = file.stamp()
        super().__init__(*keys, method="gpucloud-file")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What botocore asks for before it signs."""
        with self._lock:
            stamp = self._file.stamp()
            if stamp != self._stamp:
                keys = self._file.read()
                if keys is not None:  # else it is being switched: the next request tells
                    self.access_key, self.secret_key, self.token = keys
                    self._stamp = stamp
            return super().get_frozen_credentials()


class FileProvider(CredentialProvider):
    """For a session that is to use nothing else."""

    METHOD = "gpucloud-file"

    def __init__(self, file: KeyFile) -> None:
        super().__init__()
        self._file = file

    def load(self) -> FileCredentials | None:
        """None where the file has no key."""
        keys = self._file.read()
        return FileCredentials(self._file, keys) if keys else None


def install(file: KeyFile) -> None:
    """Let every session of this process that finds the pod's key in the variables follow ``file``.

    What somebody has put into the variables himself stays in force.
    """
    original: Callable[[EnvProvider], Credentials | None] = EnvProvider.load
    if getattr(original, "follows", None) == file.path:
        return

    known: set[str] = set()  # the variables may lag behind the file for as long as a cell runs

    @functools.wraps(original)
    def load(self: EnvProvider) -> Credentials | None:
        found, keys = original(self), file.read()
        if keys is not None:
            known.add(keys[0])
        if found is None or keys is None or found.access_key not in known:
            return found
        return FileCredentials(file, keys)

    if present := file.read():
        known.add(present[0])
    load.follows = file.path  # type: ignore[attr-defined]
    EnvProvider.load = load  # type: ignore[method-assign]
