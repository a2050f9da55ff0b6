"""Applications as the cluster has them: state, home volume, bucket.

Read from pods and volume claims, not from the hub: the service needs no right to the hub's servers.
An application that never had a pod is not known here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kubernetes_asyncio.client import CoreV1Api
from kubespawner.slugs import is_valid_label, safe_slug

from ...kube.listing import raw_items
from ...model import labels
from ...model.states import State, state_of
from ...model.units import parse_quantity
from ...storage.volumes import used_bytes
from ..errors import PortalError
from ..handler import Handler
from .s3 import describe, in_words, owner_of

Obj = dict[str, Any]


class Applications(Handler):
    """`api/applications`."""

    async def get(self) -> None:
        if self.parameters.get("scope") == "all":
            if not self.caller.is_admin:
                raise PortalError(403, "forbidden", "Only administrators see all applications.")
            user = ""
        else:
            user = owner_of(self, self.caller.is_admin)
        with in_words():
            found = await read(self.portal.kube, self.portal.settings.pod_namespace, user)
        self.write_json({"applications": [application.as_json() for application in found]})


class ApplicationDetail(Handler):
    """`api/applications/{name}`."""

    async def get(self, name: str) -> None:
        user = owner_of(self, self.caller.is_admin)
        with in_words():
            found = await read(self.portal.kube, self.portal.settings.pod_namespace, user)
        application = next((one for one in found if one.name == name), None)
        if application is None:
            raise PortalError(404, "not_found", f"There is no application {name[:80]!r} of {user}.")
        answer = application.as_json()
        if answer["volume"]:
            answer["volume"]["used_bytes"] = await used_bytes(
                self.portal.kube, application.node, application.claim
            )
        answer["s3"] = None
        if self.portal.settings.s3_provider is not None:
            answer["s3"] = await describe(self, user)
        self.write_json(answer)


class Application:
    """A claim, a pod, or both, that carry the same owner and name."""

    def __init__(self, user: str, name: str) -> None:
        self.user = user
        self.name = name
        self.claim: Obj | None = None
        self.pod: Obj | None = None

    @property
    def node(self) -> str:
        return str(self.pod["spec"].get("nodeName") or "") if self.pod else ""

    def as_json(self) -> dict[str, Any]:
        """Without what has to be asked for elsewhere."""
        state: State = state_of(self.pod)
        notes = _notes(self.pod or self.claim or {})
        return {
            "user": self.user,
            "name": self.name,
            "team": notes.get(labels.TEAM) or "",
            "profile": notes.get(labels.PROFILE) or "",
            "state": state.name,
            "reason": state.reason,
            "started": self.pod["status"].get("startTime") if self.pod else None,
            "node": self.node or None,
            "volume": _volume(self.claim) if self.claim else None,
        }


def _volume(claim: Obj) -> dict[str, Any]:
    asked = claim["spec"]["resources"]["requests"]["storage"]
    size = (claim["status"].get("capacity") or {}).get("storage") or asked
    return {
        "name": claim["metadata"]["name"],
        "storage_class": claim["spec"].get("storageClassName"),
        "size_bytes": int(parse_quantity(size)),
        "used_bytes": None,  # None: not known
    }


def _notes(thing: Obj) -> dict[str, str]:
    return dict((thing.get("metadata") or {}).get("annotations") or {})


async def read(api: CoreV1Api, namespace: str | None, user: str) -> list[Application]:
    """The applications of ``user`` ("": of all), by owner and name. Raises ApiException."""
    # labels are shortened names, so they only narrow; the annotations decide
    selector = f"{labels.USER}={safe_slug(user, is_valid=is_valid_label)}" if user else labels.USER
    found: dict[tuple[str, str], Application] = {}

    def of(thing: Obj) -> Application | None:
        notes = _notes(thing)
        owner, name = notes.get(labels.USER), notes.get(labels.APP)
        if owner is None or name is None or (user and owner != user):
            return None
        return found.setdefault((owner, name), Application(owner, name))

    if namespace is None:
        claims, pods = (
            api.list_persistent_volume_claim_for_all_namespaces,
            api.list_pod_for_all_namespaces,
        )
    else:
        claims = partial(api.list_namespaced_persistent_volume_claim, namespace)
        pods = partial(api.list_namespaced_pod, namespace)
    for claim in await raw_items(claims, label_selector=selector):
        if application := of(claim):
            application.claim = claim
    notebooks = f"{selector},{labels.COMPONENT}={labels.NOTEBOOK}"
    for pod in await raw_items(pods, label_selector=notebooks):
        if application := of(pod):
            application.pod = pod
    return [found[key] for key in sorted(found)]
