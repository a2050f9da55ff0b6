"""The home volume of an application: does it exist, how large and how full is it, may it grow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiException, CoreV1Api

from ..model.units import parse_quantity

log = logging.getLogger(__name__)
# How long a deletion that is under way is waited for.
GOING_SECONDS = 30


class VolumeError(Exception):
    """A volume cannot be what was asked; the text is for the user."""


async def fit_volume(
    api: CoreV1Api, *, name: str, namespace: str, size: str, chosen: bool, timeout: float
) -> str | None:
    """Make an existing claim at least ``size`` large, and return the size that it has then.

    None: there is no claim; KubeSpawner is to create one. A default (``chosen`` False) never
    changes a claim. Raises VolumeError where a smaller size was chosen (no storage can shrink a
    volume in use), the storage class cannot expand, or an earlier claim is still being deleted.
    """
    claim = await _claim_that_stays(api, name, namespace, timeout)
    if claim is None:
        return None
    current = claim.spec.resources.requests["storage"]
    wanted, has = parse_quantity(size), parse_quantity(current)
    if wanted == has or not chosen:
        return str(current)
    if wanted < has:
        raise VolumeError(
            f"Your home volume has {current} and cannot shrink to {size}. "
            f"Choose {current} or more, or delete the application to begin with an empty volume."
        )
    patch = {"spec": {"resources": {"requests": {"storage": size}}}}
    try:
        await api.patch_namespaced_persistent_volume_claim(
            name, namespace, patch, _request_timeout=timeout
        )
    except ApiException as error:
        if error.status not in (403, 422):
            raise
        raise VolumeError(
            f"Your home volume has {current} and its storage class {claim.spec.storage_class_name} "
            f"cannot grow it to {size}. Choose {current}, or ask an administrator."
        ) from error
    return size


async def _claim_that_stays(api: CoreV1Api, name: str, namespace: str, timeout: float) -> Any:
    """The claim; None where there is none, also once one that is being deleted is gone."""
    for _ in range(GOING_SECONDS):
        try:
            claim = await api.read_namespaced_persistent_volume_claim(
                name, namespace, _request_timeout=timeout
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        if claim.metadata.deletion_timestamp is None:
            return claim
        await asyncio.sleep(1)
    raise VolumeError(
        "The volume of an earlier application of this name is still being deleted. "
        "Try again in a minute, or choose another name."
    )


async def used_bytes(
    api: CoreV1Api, node: str, claim: Mapping[str, Any] | None, timeout: float = 5.0
) -> int | None:
    """How much of a mounted claim is in use, by the kubelet of ``node``; None: nobody can tell.

    Nobody can while no pod has it mounted, or without the right to `get nodes/proxy` (the way to a
    kubelet's stats through the API server; it also opens the kubelet's other doors, so a site may
    well not give it).
    """
    if not node or claim is None:
        return None
    try:
        answer = await api.connect_get_node_proxy_with_path(
            node, "stats/summary", _preload_content=False, _request_timeout=timeout
        )
        async with answer:
            if answer.status != 200:
                log.info("No statistics of node %s: %s", node, answer.status)
                return None
            return _used(json.loads(await answer.read()), claim["metadata"])
    except (ApiException, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        log.info("No statistics of node %s: %s", node, type(error).__name__)
        return None


def _used(summary: Mapping[str, Any], claim: Mapping[str, Any]) -> int | None:
    """https://kubernetes.io/docs/reference/instrumentation/node-metrics/#summary-api-source"""
    wanted = {"name": claim["name"], "namespace": claim["namespace"]}
    for pod in summary.get("pods") or ():
        for volume in pod.get("volume") or ():
            if volume.get("pvcRef") == wanted and "usedBytes" in volume:
                return int(volume["usedBytes"])
    return None
