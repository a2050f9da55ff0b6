"""The volumes of a pod as directories; where its containers find them is in `view`.

hostPath is refused unless the kubelet is told to allow it. Claims are directories under
DATA/volumes, shared by all nodes of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..client import KubeClient
from ..informer import Informer
from .environment import ConfigError, field_value, resource_value

log = logging.getLogger(__name__)
Obj = dict[str, Any]
SYNC_SECONDS = 10.0
Files = dict[str, tuple[bytes, int]]  # relative path -> content, mode


class MountError(Exception):
    """A volume is not there (yet): FailedMount, tried again."""


def inside(base: Path, relative: str) -> Path:
    """base/relative, refused if it would leave base: by its parts, or by a link on its way, which
    the user of a volume may have put there."""
    parts = PurePosixPath(relative).parts
    if ".." in parts or relative.startswith("/") or "\0" in relative:
        raise MountError(f"path {relative!r} must be relative and must not contain '..'")
    path = base.joinpath(*parts)
    if not path.resolve().is_relative_to(base.resolve()):
        raise MountError(f"path {relative!r} leaves its volume by a link")
    return path


class ObjectCache:
    """The Secrets and ConfigMaps that mounted volumes need, each watched while somebody uses it."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self._informers: dict[tuple[str, str, str], Informer] = {}
        self._users: dict[tuple[str, str, str], dict[str, Callable[[], None]]] = {}

    async def get(
        self, resource: str, namespace: str, name: str, user: str, changed: Callable[[], None]
    ) -> Obj | None:
        """The object or None; `changed` is called when that changes, until `release(user)`."""
        key = (resource, namespace, name)
        self._users.setdefault(key, {})[user] = changed
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self.client,
                resource,
                namespace,
                field_selector=f"metadata.name={name}",
                handler=lambda old, new: self._changed(key),
            )
            informer.start()
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await informer.synced()
        except TimeoutError:
            raise MountError(f"timed out waiting for {resource} {namespace}/{name}") from None
        return informer.store.get(f"{namespace}/{name}")

    def _changed(self, key: tuple[str, str, str]) -> None:
        for changed in self._users.get(key, {}).values():
            changed()

    async def release(self, user: str) -> None:
        for key, users in list(self._users.items()):
            users.pop(user, None)
            if not users:
                del self._users[key]
                await self._informers.pop(key).stop()

    async def close(self) -> None:
        self._users.clear()
        while self._informers:
            await self._informers.popitem()[1].stop()


class Volumes:
    """Makes the directories of a pod's volumes."""

    def __init__(
        self,
        client: KubeClient,
        data: Path,
        allocatable: Mapping[str, str],
        allow_host_path: bool = False,
    ) -> None:
        self.client = client
        self.data = data
        self.allocatable = allocatable
        self.allow_host_path = allow_host_path
        self.objects = ObjectCache(client)

    async def prepare(
        self, pod: Obj, pod_dir: Path, changed: Callable[[], None]
    ) -> dict[str, Path]:
        """Every volume's directory, by volume name. Also brings written files up to date."""
        result = {}
        for volume in pod["spec"].get("volumes") or []:
            directory = pod_dir / "volumes" / volume["name"]
            try:
                result[volume["name"]] = await self._one(pod, volume, directory, changed)
            except (ConfigError, OSError) as error:
                raise MountError(
                    f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
                ) from error
        return result

    async def _one(
        self, pod: Obj, volume: Obj, directory: Path, changed: Callable[[], None]
    ) -> Path:
        if source := volume.get("persistentVolumeClaim"):
            return await self._claim(pod, source["claimName"])
        if source := volume.get("hostPath"):
            if self.allow_host_path:
                return Path(source["path"])
            raise ConfigError(
                "hostPath is refused by the local cluster (start the kubelet with "
                "--allow-host-path to permit it)"
            )
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if "emptyDir" in volume:
            return directory
        sources = [volume]
        if projected := volume.get("projected"):
            sources = projected.get("sources") or []
        default_mode = next(
            (
                v["defaultMode"]
                for v in volume.values()
                if isinstance(v, dict) and "defaultMode" in v
            ),
            0o644,
        )
        files: Files = {}
        for source in sources:
            files |= await self._files(pod, source, default_mode, changed)
        write_atomically(directory, files)
        return directory

    async def _claim(self, pod: Obj, name: str) -> Path:
        namespace = pod["metadata"]["namespace"]
        claim = await self.client.get("persistentvolumeclaims", name, namespace)
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise MountError(f'persistentvolumeclaim "{name}" is not bound yet')
        directory = self.data / "volumes" / namespace / claim["metadata"]["uid"]
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return directory

    async def _files(
        self, pod: Obj, source: Obj, default_mode: int, changed: Callable[[], None]
    ) -> Files:
        for kind, resource in (("secret", "secrets"), ("configMap", "configmaps")):
            if spec := source.get(kind):
                name = spec.get("name") or spec.get("secretName")
                meta = pod["metadata"]
                obj = await self.objects.get(
                    resource, meta["namespace"], name, meta["uid"], changed
                )
                return _object_files(kind, name, spec, obj, default_mode)
        if spec := source.get("downwardAPI"):
            files: Files = {}
            for item in spec.get("items") or []:
                if ref := item.get("fieldRef"):
                    text = field_value(pod, ref["fieldPath"])
                else:
                    text = resource_value(pod, {}, item["resourceFieldRef"], self.allocatable)
                files[item["path"]] = (text.encode(), item.get("mode") or default_mode)
            return files
        kinds = ", ".join(key for key in source if key != "name")
        raise ConfigError(f"volume source {kinds} is not implemented by the local cluster")


def _object_files(kind: str, name: str, spec: Obj, obj: Obj | None, default_mode: int) -> Files:
    optional = bool(spec.get("optional"))
    if obj is None:
        if optional:
            return {}
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    values = {k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()}
    for key, value in (obj.get("data") or {}).items():
        values[key] = base64.b64decode(value) if kind == "secret" else value.encode()
    if not spec.get("items"):
        return {key: (value, default_mode) for key, value in values.items()}
    files: Files = {}
    for item in spec["items"]:
        if item["key"] in values:
            files[item["path"]] = (values[item["key"]], item.get("mode") or default_mode)
        elif not optional:
            raise ConfigError(f"references non-existent {kind.lower()} key: {item['key']}")
    return files


def write_atomically(directory: Path, files: Files) -> None:
    """As a kubelet does: readers see all of the old files or all of the new ones, never a mixture,
    because only the link `..data` is changed."""
    current = directory / "..data"
    if current.exists() and _same(current, files):
        return
    for name in files:
        first = next(iter(PurePosixPath(name).parts), "..")
        if first.startswith(".."):  # those are ours
            raise MountError(f"path {name!r} must name a file and must not start with '..'")
    fresh = directory / f"..{time.time_ns()}"
    fresh.mkdir(mode=0o755)
    for name, (content, mode) in files.items():
        path = inside(fresh, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        path.chmod(mode)
    old = current.resolve() if current.is_symlink() else None
    swap = directory / "..data_tmp"
    swap.unlink(missing_ok=True)
    swap.symlink_to(fresh.name)
    swap.replace(current)
    tops = {PurePosixPath(name).parts[0] for name in files}
    for top in tops:
        link = directory / top
        if not link.is_symlink():
            link.symlink_to(f"..data/{top}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _same(current: Path, files: Files) -> bool:
    present = {str(p.relative_to(current.resolve())): p for p in current.resolve().rglob("*")}
    present = {name: path for name, path in present.items() if path.is_file()}
    return present.keys() == files.keys() and all(
        path.read_bytes() == files[name][0] and path.stat().st_mode & 0o777 == files[name][1]
        for name, path in present.items()
    )
