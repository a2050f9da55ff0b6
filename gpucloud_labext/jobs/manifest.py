"""What a job's code is: the list of its files and packages, named by its own SHA-256.

The manifest is canonical JSON: the same tree gives the same bytes, so the same name. Contents lie
beside it as blobs named by their SHA-256: what did not change is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

VERSION = 1
PREFIX = ".gpucloud/code/"
BLOBS = PREFIX + "blobs/"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class BadManifest(ValueError):
    """Not a manifest that may be unpacked; the text says why."""


@dataclass(frozen=True, order=True)
class File:
    """One file (``sha256``) or one symbolic link (``target``) below the working directory."""

    path: str
    sha256: str = ""
    size: int = 0
    executable: bool = False
    target: str = ""

    def as_data(self) -> dict[str, Any]:
        if self.target:
            return {"path": self.path, "link": self.target}
        found: dict[str, Any] = {"path": self.path, "sha256": self.sha256, "size": self.size}
        return {**found, "executable": True} if self.executable else found


@dataclass(frozen=True)
class Manifest:
    """A working directory and the packages that it needs."""

    files: tuple[File, ...]
    packages: tuple[str, ...] = ()  # exact requirements, as pip reads them
    import_paths: tuple[str, ...] = ()  # folders of `files` that Python looks into

    def to_json(self) -> bytes:
        value = {
            "version": VERSION,
            "files": [file.as_data() for file in sorted(self.files)],
            "packages": sorted(self.packages),
            "import_paths": list(self.import_paths),
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def blobs(self) -> dict[str, int]:
        """SHA-256 and size of every content, once."""
        return {file.sha256: file.size for file in self.files if not file.target}

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises BadManifest: what comes from a bucket is checked before it becomes paths."""
        try:
            value = json.loads(data)
            if value["version"] != VERSION:
                raise BadManifest(f"version {value['version']!r} is not known here")
            files = tuple(_file(entry) for entry in value["files"])
            found = cls(files, tuple(value["packages"]), tuple(value["import_paths"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadManifest(f"the manifest cannot be read: {error}") from error
        for name in (*_paths(found), *found.import_paths):
            _check_path(name)
        return found


def key_of(sha256: str) -> str:
    """The key of a manifest in the user's bucket."""
    return f"{PREFIX}{sha256}.json"


def blob_key(sha256: str) -> str:
    """The key of a file's content in the user's bucket."""
    return BLOBS + sha256


def inside(folder: str, target: str) -> bool:
    """Whether a relative link ``target`` in ``folder`` stays below the working directory."""
    depth = len([part for part in folder.split("/") if part])
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return not target.startswith("/")


def _file(entry: Any) -> File:
    path, link = str(entry["path"]), entry.get("link")
    if link is not None:
        if not inside(path.rpartition("/")[0], str(link)):
            raise BadManifest(f"the link {path!r} leads out of the working directory")
        return File(path, target=str(link))
    digest = str(entry["sha256"])
    if not _SHA256.fullmatch(digest):
        raise BadManifest(f"{path!r} has no SHA-256")
    return File(path, digest, int(entry["size"]), bool(entry.get("executable", False)))


def _paths(manifest: Manifest) -> Iterator[str]:
    links = {file.path for file in manifest.files if file.target}
    seen: set[str] = set()
    for file in manifest.files:
        if file.path in seen:
            raise BadManifest(f"{file.path!r} is there twice")
        seen.add(file.path)
        # a file below a link would be written wherever that leads
        if any(str(parent) in links for parent in PurePosixPath(file.path).parents):
            raise BadManifest(f"{file.path!r} lies below a link")
        yield file.path


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or "\0" in path or path.startswith("/") or any(p in ("", ".", "..") for p in parts):
        raise BadManifest(f"{path!r} is no path below the working directory")
