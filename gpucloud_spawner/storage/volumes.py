"""The home volume of an application: does it exist, how large is it, may it grow."""

from __future__ import annotations

from kubernetes_asyncio.client import ApiException, CoreV1Api

from ..model.units import parse_quantity


class VolumeError(Exception):
    """A volume cannot be what was asked; the text is for the user."""


async def fit_volume(
    api: CoreV1Api, *, name: str, namespace: str, size: str, chosen: bool, timeout: float
) -> str:
    """Make an existing claim at least ``size`` large, and return the size it is to have.

    A claim that does not exist is left to KubeSpawner to create. A default (``chosen`` False) never
    changes a claim. Raises VolumeError where a smaller size was chosen (no storage
    can shrink a volume in use) or the storage class cannot expand.
    """
    try:
        claim = await api.read_namespaced_persistent_volume_claim(
            name, namespace, _request_timeout=timeout
        )
    except ApiException as error:
        if error.status == 404:
            return size
        raise
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
