"""The mounted file with the user's key: when it changes, and what is in it.

It is a shared credentials file (AWS_SHARED_CREDENTIALS_FILE). Kubernetes switches it when the key
is renewed; the variables AWS_ACCESS_KEY_ID... of a process that runs cannot follow, so where both
are there, the file is right.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

# Access key, secret, session token.
Keys = tuple[str, str, str | None]
Stamp = tuple[Any, ...]
KEY, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


class KeyFile:
    """A shared credentials file that may be switched at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_environment(cls) -> KeyFile | None:
        """The one that the pod names; None where it names none."""
        name = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
        return cls(Path(name).expanduser()) if name else None

    def stamp(self) -> Stamp:
        """What tells that the key was renewed: a mounted Secret is a symlink that is switched."""
        try:
            seen = self.path.stat()
        except OSError:
            return (self.path, None)
        return (self.path, seen.st_ino, seen.st_mtime_ns, seen.st_size)

    def read(self) -> Keys | None:
        """The keys of the profile; None when the file has none."""
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(self.path.read_text())
            section = parser[os.environ.get("AWS_PROFILE") or "default"]
            token = section.get("aws_session_token")
            return section["aws_access_key_id"], section["aws_secret_access_key"], token
        except (OSError, KeyError, ValueError, configparser.Error):  # ValueError: no text
            return None


def session_arguments(keys: Keys | None) -> dict[str, Any]:
    """For a `boto3.Session`; None leaves the search to boto3 (environment, instance role...)."""
    if keys is None:
        return {}
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return dict(zip(names, keys, strict=True))


class FreshVariables:
    """Keeps the key variables of ``environment`` as the file has them, for whatever reads them and
    for processes that are started from here. A key that somebody has set himself is left alone."""

    def __init__(self, file: KeyFile, environment: MutableMapping[str, str] = os.environ) -> None:
        self._file = file
        self._environment = environment
        self._stamp = file.stamp()
        self._known = file.read()

    def follow(self) -> bool:
        """Look again, which is cheap; True where the variables were renewed."""
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return False
        keys = self._file.read()
        if keys is None:
            return False  # being switched, or gone: the next look tells
        before, self._known, self._stamp = self._known, keys, stamp
        if before is None or self._environment.get(KEY) != before[0]:
            return False
        self._environment[KEY], self._environment[SECRET] = keys[:2]
        return True
