"""Users' S3 keys in Kubernetes: one Secret per user, and how a pod refers to it.

The store itself is the provider's business (`s3`). A Secret belongs to no pod: it outlives all of
them, and pods hold only its name. What a rotation does to running pods is in README.md.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kubernetes_asyncio.client import (
    ApiException,
    CoreV1Api,
    V1EnvVar,
    V1EnvVarSource,
    V1KeyToPath,
    V1ObjectMeta,
    V1Pod,
    V1Secret,
    V1SecretKeySelector,
    V1SecretVolumeSource,
    V1Volume,
    V1VolumeMount,
)
from kubespawner.slugs import is_valid_label, safe_slug

from ..model import labels
from .s3 import NO_EXTRA_CHECKSUMS, Credentials, S3Error, S3Provider, Usage, taken, user_slug

COMPONENT = "s3-keys"
MOUNT = "/var/run/gpucloud/s3"
CREDENTIALS_FILE = "credentials"
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "GPUCLOUD_S3_BUCKET",
    "GPUCLOUD_S3_TEAM_BUCKETS",
    *NO_EXTRA_CHECKSUMS,
)
_TRIES = 5  # a Secret that others change at the same moment


def secret_name(user: str) -> str:
    """Name of the Secret with ``user``'s keys; different for different users."""
    return f"gpucloud-s3-{user_slug(user)}"


def attach(pod: V1Pod, secret: str) -> None:
    """Give the pod's first container the keys: as variables, and as a file that is kept fresh.

    Only the Secret's name gets into the pod. Variables that the pod has already stay as they are.
    """
    container = pod.spec.containers[0]
    container.env = list(container.env or [])
    present = {variable.name for variable in container.env}
    variables = [_variable(name, secret) for name in VARIABLES]
    variables.append(
        V1EnvVar(name="AWS_SHARED_CREDENTIALS_FILE", value=f"{MOUNT}/{CREDENTIALS_FILE}")
    )
    container.env += [variable for variable in variables if variable.name not in present]
    item = V1KeyToPath(key=CREDENTIALS_FILE, path=CREDENTIALS_FILE)
    # readable for whatever user the container runs as; nobody else is in a pod
    source = V1SecretVolumeSource(secret_name=secret, items=[item], default_mode=0o444)
    pod.spec.volumes = [*(pod.spec.volumes or []), V1Volume(name="gpucloud-s3", secret=source)]
    container.volume_mounts = [
        *(container.volume_mounts or []),
        V1VolumeMount(name="gpucloud-s3", mount_path=MOUNT, read_only=True),
    ]


def _variable(name: str, secret: str) -> V1EnvVar:
    # optional: a Secret of another version may lack one, which must not keep a pod from starting
    selector = V1SecretKeySelector(name=secret, key=name, optional=True)
    return V1EnvVar(name=name, value_from=V1EnvVarSource(secret_key_ref=selector))


@dataclass(frozen=True)
class Place:
    """Where a user's data are, as the Secret says it; nothing in it is secret."""

    endpoint: str
    region: str
    bucket: str
    team_buckets: dict[str, str]


class S3Keys:
    """The life of users' keys: made, rotated, revoked, in the store and in Kubernetes."""

    def __init__(
        self, provider: S3Provider, api: CoreV1Api, namespace: str, timeout: float = 5.0
    ) -> None:
        self._provider = provider
        self._api = api
        self._namespace = namespace
        self._timeout = timeout
        self._rotating: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, user: str, teams: Collection[str]) -> str:
        """Bucket, living key and Secret of ``user``; the Secret's name.

        Raises S3Error, or kubernetes_asyncio's ApiException.
        """
        for attempt in range(_TRIES):
            secret = await self._read(user)
            current = _held(secret, "AWS_ACCESS_KEY_ID")
            keys = await self._provider.ensure_user(user, teams, current)
            try:
                await self._put(user, keys, over=secret)
                break
            except ApiException as error:
                # changed since it was read, maybe by a rotation: the key may be dead by now
                if error.status not in (404, 409) or attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(0.05 * 2**attempt)
        return secret_name(user)

    async def place(self, user: str) -> Place | None:
        """Where the user's data are; None where there are no keys yet. Raises ApiException."""
        secret = await self._read(user)
        if secret is None:
            return None
        return Place(
            endpoint=_held(secret, "AWS_ENDPOINT_URL_S3"),
            region=_held(secret, "AWS_DEFAULT_REGION"),
            bucket=_held(secret, "GPUCLOUD_S3_BUCKET"),
            team_buckets=json.loads(_held(secret, "GPUCLOUD_S3_TEAM_BUCKETS") or "{}"),
        )

    async def has_secret(self, user: str) -> bool:
        """Whether pods of ``user`` can start with keys, be the store reachable or not."""
        return await self._read(user) is not None

    async def rotate(self, user: str, teams: Collection[str] | None = None) -> Credentials:
        """A new key in the Secret; every other key is dead when this returns.

        ``teams`` None: those that the user had at the last start. Raises S3Error, ApiException.
        """
        async with self._rotating[user]:  # two at once would end each other's key
            return await self._rotate(user, teams)

    async def _rotate(self, user: str, teams: Collection[str] | None) -> Credentials:
        if teams is None:
            held = _held(await self._read(user), "GPUCLOUD_S3_TEAM_BUCKETS")
            teams = json.loads(held) if held else {}
        keys = await self._provider.new_key(user, list(teams))
        try:
            await self._write(user, keys)
        except (ApiException, OSError, TimeoutError):
            # nobody has the new key: it must not live on, and the old ones stay in use
            held = _held(await self._read(user), "AWS_ACCESS_KEY_ID")
            if held != keys.access_key:
                await self._provider.revoke(user, keep=held)
            raise
        await self._provider.revoke(user, keep=keys.access_key)
        return keys

    async def revoke(self, user: str) -> None:
        """End all keys and delete the Secret; the data stay until `purge`."""
        try:
            await self._provider.revoke(user)
        finally:  # whatever the store says: no pod shall start with them
            await self._delete_secret(user)

    async def _delete_secret(self, user: str) -> None:
        try:
            await self._api.delete_namespaced_secret(
                secret_name(user), self._namespace, _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status != 404:
                raise

    async def usage(self, user: str) -> Usage:
        """What the user's bucket holds. Raises S3Error."""
        return await self._provider.usage(user)

    async def purge(self, user: str) -> None:
        """End all keys and delete all data of the user's bucket, for good."""
        await self.revoke(user)
        await self._provider.purge(user)

    async def _read(self, user: str) -> V1Secret | None:
        try:
            secret = await self._api.read_namespaced_secret(
                secret_name(user), self._namespace, _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        if (secret.metadata.annotations or {}).get(labels.USER) != user:
            raise taken("Secret", user)
        return secret

    async def _write(self, user: str, keys: Credentials) -> None:
        for attempt in range(_TRIES):
            try:
                await self._put(user, keys, over=await self._read(user))
                return
            except ApiException as error:
                if error.status not in (404, 409) or attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(0.05 * 2**attempt)

    async def _put(self, user: str, keys: Credentials, over: V1Secret | None) -> None:
        """The Secret in the place of ``over``. Raises ApiException (404, 409) where that is not
        what is there any more."""
        wanted = _secret(user, keys)
        if over is None:
            await self._api.create_namespaced_secret(
                self._namespace, wanted, _request_timeout=self._timeout
            )
        elif over.data != wanted.data:
            # with its version: a change in between is answered with 409, not lost
            wanted.metadata.resource_version = over.metadata.resource_version
            await self._api.replace_namespaced_secret(
                wanted.metadata.name, self._namespace, wanted, _request_timeout=self._timeout
            )


def _held(secret: V1Secret | None, name: str) -> str:
    text = (secret.data or {}).get(name, "") if secret else ""
    return base64.b64decode(text).decode()


def _secret(user: str, keys: Credentials) -> V1Secret:
    values = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_ENDPOINT_URL_S3": keys.endpoint,
        "AWS_DEFAULT_REGION": keys.region,
        "GPUCLOUD_S3_BUCKET": keys.bucket,
        "GPUCLOUD_S3_TEAM_BUCKETS": json.dumps(keys.team_buckets, ensure_ascii=False),
        **keys.settings,
        CREDENTIALS_FILE: _credentials_file(keys),
    }
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    meta = V1ObjectMeta(
        name=secret_name(user),
        labels={
            "app.kubernetes.io/managed-by": "gpucloud",
            labels.COMPONENT: COMPONENT,
            labels.USER: safe_slug(user, is_valid=is_valid_label),
        },
        annotations={labels.USER: user},
    )
    return V1Secret(api_version="v1", kind="Secret", metadata=meta, type="Opaque", data=data)


def _credentials_file(keys: Credentials) -> str:
    """https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html"""
    for value in (keys.access_key, keys.secret_key):
        if not value.isprintable() or value != value.strip():
            raise S3Error("The S3 key has characters that no key has.", "s3_misconfigured")
    return (
        "[default]\n"
        f"aws_access_key_id = {keys.access_key}\n"
        f"aws_secret_access_key = {keys.secret_key}\n"
    )


def as_data(usage: Usage) -> dict[str, Any]:
    """`Usage` as application data and the command line show it."""
    return {"bytes": usage.bytes, "objects": usage.objects, "quota_bytes": usage.quota_bytes}
