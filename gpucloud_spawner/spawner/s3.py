"""S3 in a server's life: keys before its pod is made, none after its owner is gone.

What keys are and where they are kept is in `storage`; here is what a start does where they cannot
be had.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
from kubernetes_asyncio.client import ApiException

from ..storage.keys import S3Keys, secret_name
from ..storage.s3 import S3Error
from .errors import StartRefused

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner

_TROUBLE = (S3Error, ApiException, aiohttp.ClientError, TimeoutError, OSError)


def keys_of(spawner: GPUCloudSpawner) -> S3Keys | None:
    """The keys' keeper of this hub; None where there is no S3."""
    if spawner.s3_provider is None:
        return None
    return S3Keys(
        spawner.s3_provider, spawner.api, spawner.namespace, spawner.k8s_api_request_timeout
    )


async def prepare_keys(spawner: GPUCloudSpawner) -> tuple[str, str]:
    """The Secret for this start's pod ("": none), and words for its owner ("": all is well).

    Raises StartRefused where the site requires S3 and it cannot be had.
    """
    keys = keys_of(spawner)
    if keys is None:
        return "", ""
    try:
        async with asyncio.timeout(spawner.s3_timeout):
            return await keys.ensure(spawner.user.name, spawner.user_groups), ""
    except _TROUBLE as error:
        words = _words(error)
        spawner.log.warning("No fresh S3 keys for %s: %s", spawner._log_name, words)
        if spawner.s3_required:
            raise StartRefused(words, reason="s3", status_code=503) from error
    return await _without_the_store(spawner, keys), f"{words} Your home volume works as usual."


async def _without_the_store(spawner: GPUCloudSpawner, keys: S3Keys) -> str:
    """The keys of an earlier start are good again once the store is back."""
    try:
        async with asyncio.timeout(spawner.s3_timeout):
            known = await keys.has_secret(spawner.user.name)
    except _TROUBLE:
        return ""
    return secret_name(spawner.user.name) if known else ""


async def end_keys(spawner: GPUCloudSpawner) -> None:
    """The owner is deleted: so are the keys, and the data wait for `gpucloud s3 purge`."""
    keys = keys_of(spawner)
    if keys is None:
        return
    name = spawner.user.name
    try:
        await keys.revoke(name)
    except _TROUBLE as error:
        if isinstance(error, S3Error) and error.code == "s3_unsupported":
            spawner.log.warning("The S3 keys of %s must be ended by hand", name)
            return
        spawner.log.error(
            "The S3 keys of the deleted user %s still live (%s); end them with "
            "`gpucloud s3 revoke`, or delete the user again",
            name,
            _words(error),
        )


def _words(error: BaseException) -> str:
    if isinstance(error, S3Error):
        return str(error)
    # not the text of others: an ApiException quotes what was sent and answered
    if isinstance(error, ApiException):
        return f"S3 keys cannot be kept in Kubernetes ({error.status} {error.reason})."
    return f"S3 does not answer in time ({type(error).__name__})."
