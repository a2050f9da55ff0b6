"""Which log directories may be shown: folders of the home, prefixes of the user's own buckets.

Paths are compared part by part, after symlinks are resolved: `alice-2` is not in `alice`. Nothing
here starts a process or speaks to S3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError

SCHEME = "s3://"
MAX_BYTES = 1024  # of a key in S3; a path on a disk may be longer, but none is
MAX_PART_BYTES = 255  # of a name on a disk, where copies from S3 go, too
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class LogDir:
    """A directory that was found to be the user's. Equal ones share a TensorBoard."""

    text: str  # as the user may type it again: home-relative, or s3://bucket/prefix
    path: Path | None = None
    bucket: str = ""
    prefix: str = ""


def find(text: str, home: Path, drives: Mapping[str, str]) -> LogDir:
    """The log directory that ``text`` names. Raises LabError (4xx) that says what is allowed.

    ``s3/runs``, the path of the file browser, is the same as ``s3://<own bucket>/runs``.
    """
    _check_text(text)
    if text.startswith(SCHEME):
        return _in_bucket(text, drives)
    first, _, rest = text.strip("/").partition("/")
    if first in drives and not text.startswith("/"):
        return _in_bucket(f"{SCHEME}{drives[first]}/{rest}", drives)
    return _in_home(text, home.resolve())


def _check_text(text: str) -> None:
    if not text.strip():
        raise _refused("empty", "logdir is empty. Give a folder of your home, or s3://bucket/path.")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise _refused("not_a_path", "logdir is not valid text.") from None
    if length > MAX_BYTES:
        raise _refused("too_long", f"logdir has {length} bytes; {MAX_BYTES} are allowed.")
    if any(len(part.encode()) > MAX_PART_BYTES for part in text.split("/")):
        raise _refused("too_long", f"A folder's name in logdir has over {MAX_PART_BYTES} bytes.")
    if _CONTROL.search(text):
        raise _refused("not_a_path", "logdir has control characters in it.")


def _in_bucket(text: str, drives: Mapping[str, str]) -> LogDir:
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if any(part in ("", ".", "..") for part in parts):
        raise _refused("not_a_path", f"{text!r} has an empty part, '.' or '..' in it.")
    allowed = sorted(set(drives.values()))
    if not allowed:
        raise LabError(400, "no_s3", "This server has no S3 bucket. Use a folder of your home.")
    if bucket not in allowed:
        names = ", ".join(f"s3://{name}/" for name in allowed)
        raise LabError(
            403,
            "not_your_bucket",
            f"{bucket!r} is not a bucket of yours. You may read: {names}",
            buckets=allowed,
        )
    clean = "/".join(parts)
    return LogDir(f"{SCHEME}{bucket}/{clean}", bucket=bucket, prefix=clean)


def _in_home(text: str, home: Path) -> LogDir:
    if "://" in text:
        raise _refused("not_a_path", f"{text!r}: of URLs, only s3://bucket/path is read.")
    given = Path(text)
    if given.is_absolute() or text.startswith("~") or ".." in given.parts:
        raise _refused(
            "outside_home",
            f"{text!r}: give the folder as seen from your home, such as 'runs/first', "
            "without a leading / and without '..'.",
        )
    try:
        path = (home / given).resolve()
        is_other = path.exists() and not path.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of symlinks
        raise _refused("not_a_path", f"{text!r} cannot be opened: {error}") from error
    if not path.is_relative_to(home):
        raise LabError(
            403, "outside_home", f"{text!r} is a link to a place outside of your home directory."
        )
    if is_other:
        raise _refused("not_a_folder", f"{text!r} is a file. Give the folder it is in.")
    # a folder that is not there yet is no mistake: TensorBoard is often opened before the training
    return LogDir(str(path.relative_to(home)), path=path)


def _refused(code: str, message: str) -> LabError:
    if len(message) > 400:
        message = message[:400] + "…"
    return LabError(400, code, message, parameter="logdir")
