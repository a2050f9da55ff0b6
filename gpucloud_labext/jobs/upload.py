"""The captured code into the user's bucket: only what is not there yet, the manifest last.

Nothing is ever overwritten with something else, since names are digests: two uploads at once, or
one that broke off, do no harm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError
from ..s3.failures import StoreErrors
from ..s3.parallel import for_each
from .capture import Captured, hash_of
from .manifest import BLOBS, Manifest, blob_key, key_of
from .store import THREADS, Store, words

# So many objects are asked for one by one; a listing of the bucket is cheaper for more.
_ASK_EACH = 64
_IN_MEMORY = 8 * 2**20


@dataclass(frozen=True)
class Uploaded:
    """What an upload did."""

    sha256: str
    files: int
    sent_files: int
    sent_bytes: int


def upload(store: Store, captured: Captured, manifest: Manifest) -> Uploaded:
    """Make ``manifest`` complete in the bucket. Raises LabError."""
    try:
        missing = _missing(store, manifest)
        for_each(lambda digest: _send(store, captured, digest), missing, THREADS)
        store.put(key_of(manifest.sha256), manifest.to_json(), "application/json")
    except StoreErrors as error:
        raise LabError(
            503, "upload_failed", f"The code could not be uploaded: {words(error)}."
        ) from error
    sizes = manifest.blobs
    sent = sum(sizes[digest] for digest in missing)
    return Uploaded(manifest.sha256, len(manifest.files), len(missing), sent)


def _missing(store: Store, manifest: Manifest) -> list[str]:
    """Digests of contents that the bucket lacks, or has in another size: a half-written one."""
    wanted = manifest.blobs
    if len(wanted) > _ASK_EACH:
        there = {entry.key.removeprefix(BLOBS): entry.size for entry in store.entries(BLOBS)}
        return [digest for digest, size in wanted.items() if there.get(digest) != size]
    absent: list[str] = []

    def ask(digest: str) -> None:
        if not store.exists(blob_key(digest)):
            absent.append(digest)

    for_each(ask, list(wanted), THREADS)
    return absent


def _send(store: Store, captured: Captured, digest: str) -> None:
    """Raises LabError if the file is no longer what its digest says."""
    path = captured.sources[digest]
    if isinstance(path, bytes):
        store.put(blob_key(digest), path)
        return
    if path.stat().st_size < _IN_MEMORY:
        data = path.read_bytes()
        _check(path, hashlib.sha256(data).hexdigest(), digest)
        store.put(blob_key(digest), data)
        return
    store.put_file(blob_key(digest), path)
    try:
        _check(path, hash_of(path), digest)
    except LabError:
        store.delete([blob_key(digest)])
        raise


def _check(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise LabError(
            409,
            "changed_meanwhile",
            f"{path} was changed while it was sent. Run it again; name files that are always "
            "written to, such as logs, in .gpucloudignore.",
        )
