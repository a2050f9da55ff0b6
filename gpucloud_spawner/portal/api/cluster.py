"""The live GPUs, and what tells how the service itself is doing."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .. import openapi
from ..errors import PortalError
from ..gpus import describe_gpus
from ..handler import Handler


class GPUs(Handler):
    """`api/gpus`."""

    async def get(self) -> None:
        snapshot = await self.portal.look_at_cluster()
        if snapshot is None:
            raise PortalError(
                503, "cluster_unavailable", "The cluster does not tell its GPUs at the moment."
            )
        nodes, pods = snapshot
        inventory = describe_gpus(self.portal.settings.gpus, nodes, pods)
        self.write_json(inventory.as_json(with_holders=self.caller.is_admin))


class Health(Handler):
    """`health`: 200 while the process works; what is amiss is in the words."""

    async def get(self) -> None:
        ledger = "ready" if self.portal.is_ready else "waiting for the database"
        self.write_json({"status": "ok", "ledger": ledger})


class Metrics(Handler):
    """`metrics`."""

    async def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(generate_latest(self.portal.registry))


class OpenAPI(Handler):
    """`api/openapi.json`."""

    async def get(self) -> None:
        self.write_json(openapi.document(self.portal.hub.prefix, self.portal.routes))
