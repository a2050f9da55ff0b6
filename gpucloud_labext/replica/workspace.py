"""The replica's own copy of the code, fetched from the user's bucket and checked."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ..jobs.manifest import BadManifest, File, Manifest, blob_key, key_of
from ..jobs.store import THREADS, Store
from ..s3.parallel import for_each
from .contract import NO_CODE, Failure

_IN_MEMORY = 8 * 2**20


def fetch(store: Store, sha256: str, folder: Path) -> Manifest:
    """Fill ``folder``, which is emptied first. Raises Failure, StoreErrors."""
    try:
        data = store.get(key_of(sha256))
        if data is None:
            raise _failure(f"s3://{store.name}/{key_of(sha256)} is not there: was it deleted?")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _failure(f"s3://{store.name}/{key_of(sha256)} was changed since the launch")
        manifest = Manifest.from_json(data)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for parent in {(folder / file.path).parent for file in manifest.files}:
            parent.mkdir(parents=True, exist_ok=True)
        for_each(lambda file: _fetch(store, file, folder), list(manifest.files), THREADS)
    except BadManifest as error:
        raise _failure(str(error)) from error
    return manifest


def _fetch(store: Store, file: File, folder: Path) -> None:
    path = folder / file.path
    if file.target:
        path.symlink_to(file.target)
        return
    key = blob_key(file.sha256)
    if file.size < _IN_MEMORY:
        data = store.get(key)
        if data is None:
            raise _failure(f"{file.path} (s3://{store.name}/{key}) is not there: was it deleted?")
        found = hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
    else:
        store.get_file(key, path)
        with path.open("rb") as written:
            found = hashlib.file_digest(written, "sha256").hexdigest()
    if found != file.sha256:
        raise _failure(f"{file.path} (s3://{store.name}/{key}) is not what was sent")
    if file.executable:
        path.chmod(0o755)


def _failure(what: str) -> Failure:
    return Failure(NO_CODE, "code_unavailable", f"The job's code could not be fetched: {what}.")
