"""The user's own packages in a folder beside the image's, installed once and cached.

The requirements are exact and complete (what was frozen in the notebook), so pip need not look for
dependencies, and what the image has stays as it is. Cached in the replica's cache folder, which a
site may keep on the node, and as an archive in the user's bucket.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..jobs.store import Store, words
from ..s3.failures import StoreErrors
from .contract import NO_PACKAGES, Failure
from .output import Output
from .script import Script

PREFIX = ".gpucloud/packages/"


class Packages:
    """The overlay of one list of requirements."""

    def __init__(self, requirements: Sequence[str], cache: Path, store: Store) -> None:
        self.requirements = tuple(sorted(requirements))
        # compiled for one Python on one kind of machine
        made_for = [platform.python_version(), platform.machine(), platform.libc_ver()[0]]
        text = json.dumps([made_for, self.requirements])
        self._key = hashlib.sha256(text.encode()).hexdigest()[:40]
        self._store = store
        self.folder = cache / "packages" / self._key

    async def install(self, output: Output) -> None:
        """Make the folder complete. Raises Failure."""
        if self.folder.is_dir():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        # the bucket's part in threads, which may still write there when the replica is stopped
        with tempfile.TemporaryDirectory(
            dir=self.folder.parent, prefix=".new-", ignore_cleanup_errors=True
        ) as name:
            made = Path(name) / "packages"
            if not await asyncio.to_thread(self._from_bucket, made, output):
                await self._pip(made, Path(name) / "requirements.txt", output)
                await asyncio.to_thread(self._to_bucket, made, output)
            # another replica on this node may have been quicker
            with contextlib.suppress(OSError):
                made.rename(self.folder)
        if not self.folder.is_dir():
            raise self._failure("their folder could not be written")

    async def _pip(self, made: Path, wanted: Path, output: Output) -> None:
        output.say(f"installing {len(self.requirements)} packages: {_few(self.requirements)}")
        wanted.write_text("".join(f"{line}\n" for line in self.requirements))
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-input"]
        command += ["--disable-pip-version-check", "--target", str(made), "-r", str(wanted)]
        # a setting of the image for people, which excludes --target
        environment = {**os.environ, "PIP_USER": "0"}
        installing = await Script.start(command, wanted.parent, environment, output)
        try:
            code = await installing.wait()
        except BaseException:
            await installing.stop(1.0)
            raise
        if code:
            raise self._failure(f"pip ended with {code}:\n" + "\n".join(output.tail()[-15:]))
        made.mkdir(exist_ok=True)

    def _from_bucket(self, made: Path, output: Output) -> bool:
        key = f"{PREFIX}{self._key}.tar.gz"
        archive = made.with_suffix(".tar.gz")
        try:
            if not self._store.exists(key):
                return False
            self._store.get_file(key, archive)
            with tarfile.open(archive) as tar:
                tar.extractall(made, filter="data")
        except (*StoreErrors, tarfile.TarError, EOFError, zlib.error) as error:
            # only a cache: pip can do it as well
            output.say(f"the cached packages cannot be used: {error}")
            shutil.rmtree(made, ignore_errors=True)
            return False
        return True

    def _to_bucket(self, made: Path, output: Output) -> None:
        archive = made.with_suffix(".tar.gz")
        try:
            with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
                tar.add(made, arcname=".")
            self._store.put_file(f"{PREFIX}{self._key}.tar.gz", archive)
        except StoreErrors as error:
            output.say(f"the packages were not cached: {words(error)}")
        finally:
            archive.unlink(missing_ok=True)

    def _failure(self, what: str) -> Failure:
        return Failure(
            NO_PACKAGES, "packages_failed", f"The packages could not be installed: {what}"
        )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown}, ..."
