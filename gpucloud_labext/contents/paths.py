"""API paths and object keys: pure functions, whole parts only. No I/O."""

from __future__ import annotations

import posixpath

from tornado.web import HTTPError

KEEP = ".s3keep"  # the name s3contents uses, so that its empty folders stay folders


def split(path: str) -> tuple[str, ...]:
    """The parts of an API path; refuses what could leave the root or is no name anywhere."""
    parts = tuple(part for part in path.split("/") if part)
    for part in parts:
        if part in (".", "..") or "\0" in part or not _encodable(part):
            raise HTTPError(400, f"Not a valid path: {path!r}", reason="Invalid path")
    return parts


def _encodable(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def is_hidden(parts: tuple[str, ...]) -> bool:
    """Hidden as in a home folder: a name that starts with a dot, at any level."""
    return any(part.startswith(".") for part in parts)


def parent(path: str) -> str:
    return posixpath.dirname(path.strip("/"))


def name(path: str) -> str:
    return posixpath.basename(path.strip("/"))


def inside(path: str, folder: str) -> bool:
    """Is ``path`` the folder itself or something in it? ``alice-2`` is not in ``alice``."""
    path, folder = path.strip("/"), folder.strip("/")
    return path == folder or path.startswith(f"{folder}/")


def safe_relative(relative: str) -> bool:
    """May this rest of a key become a path on a disk? Keys may hold ``..`` or empty parts."""
    return all(
        part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= 255
        for part in relative.split("/")
    )
