"""Contents models, as jupyter-server defines them, of S3 objects and folders. Pure."""

from __future__ import annotations

import hashlib
import mimetypes
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .bucket import Entry

# S3 knows no times of folders; models need one. jupyter-server's own fallback.
NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
Model = dict[str, Any]


def _model(path: str, kind: str, modified: datetime, size: int | None) -> Model:
    return {
        "name": path.rsplit("/", 1)[-1],
        "path": path,
        "type": kind,
        "last_modified": modified,
        "created": modified,
        "content": None,
        "format": None,
        "mimetype": None,
        "size": size,
        "writable": True,
        "hash": None,
        "hash_algorithm": None,
    }


def of_folder(path: str) -> Model:
    return _model(path, "directory", NO_TIME, None)


def of_file(path: str, entry: Entry) -> Model:
    model = _model(path, "file", entry.modified, entry.size)
    if path.endswith(".ipynb"):
        model["type"] = "notebook"
    else:
        model["mimetype"] = mimetype(path)
    return model


def mimetype(path: str) -> str | None:
    name = path.rsplit("/", 1)[-1]
    dot = name.find(".")
    return _of_suffix(name[dot:]) if dot >= 0 else None


@lru_cache(4096)
def _of_suffix(suffix: str) -> str | None:
    return mimetypes.guess_type(f"x{suffix}")[0]


def content_type(path: str) -> str:
    """What an object is stored and served as."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.endswith(".ipynb"):
        return "application/x-ipynb+json"
    kind, encoding = mimetypes.guess_type(f"x{name[name.find('.') :]}" if "." in name else "x")
    if encoding == "gzip":
        return "application/gzip"  # RFC 6713
    if encoding is not None or kind is None:
        return "application/octet-stream"
    return "text/plain; charset=UTF-8" if kind == "text/plain" else kind


def digest(data: bytes, algorithm: str) -> str:
    return hashlib.new(algorithm, data).hexdigest()
