"""What this server is, since when it runs, and what it has cost: `GET api/status`.

Most of it is in the pod's environment; the cost is the ledger's, asked of the service at most every
few seconds. Without the service the rest is still told.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .activity import rfc3339
from .client import Client, service
from .errors import LabError
from .gpus import granted

# Panels of several tabs ask every few seconds; money changes slowly.
FRESH_SECONDS = 10.0
# A server that has run for longer than this shows the cost of this time only.
LOOK_BACK = timedelta(days=100)
MAX_PAGES = 20
LINES = "api/usage/intervals"


class Bill:
    """The ledger's line of this pod."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._known: dict[str, Any] = {}
        self._asked_at = float("-inf")
        self._begin: str | None = None  # of our line, once it was seen
        self._asking = asyncio.Lock()

    async def read(self) -> dict[str, Any]:
        """`started`, `cost_so_far`, `currency`, `price_per_gpu_hour`, and how the service is."""
        if self._known and self._asking.locked():
            return self._known  # a service that is slow holds up one page, not all
        async with self._asking:
            if time.monotonic() - self._asked_at >= FRESH_SECONDS:
                self._known = await self._ask()
                self._asked_at = time.monotonic()
        return self._known

    async def _ask(self) -> dict[str, Any]:
        nothing = dict.fromkeys(("started", "cost_so_far", "currency", "price_per_gpu_hour"))
        try:
            line, currency = await self._line(service())
        except LabError as error:
            return {**nothing, "service": error.message}
        told = {**nothing, "currency": currency, "service": "ok"}
        if line is None:
            return told
        prices = line["prices"]
        return {
            **told,
            "started": line["start"],
            "cost_so_far": line["cost"],
            "price_per_gpu_hour": prices[-1]["price_per_hour"] if prices else None,
        }

    async def _line(self, client: Client) -> tuple[dict[str, Any] | None, str | None]:
        now = datetime.now(UTC)
        asked: dict[str, Any] = {
            "app": self._environment.get("JUPYTERHUB_SERVER_NAME", ""),
            "component": "notebook",
            "start": self._begin or rfc3339(now - LOOK_BACK),
            "end": rfc3339(now + timedelta(minutes=1)),
            "page_size": 1000,
        }
        currency = None
        for _ in range(MAX_PAGES):
            page = await client.request_async("GET", LINES, params=asked)
            currency = page["currency"]
            for line in page["lines"]:
                if line["running"] and line["name"] == self._environment.get("HOSTNAME"):
                    self._begin = line["start"]
                    return line, currency
            if not page["next"]:
                break
            asked["cursor"] = page["next"]
        return None, currency


def facts(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the environment tells of this server."""
    bucket = environment.get("GPUCLOUD_S3_BUCKET")
    endpoint = environment.get("AWS_ENDPOINT_URL_S3")
    return {
        "user": environment.get("JUPYTERHUB_USER", ""),
        "application": environment.get("JUPYTERHUB_SERVER_NAME", ""),
        "team": environment.get("GPUCLOUD_TEAM", ""),
        "profile": environment.get("GPUCLOUD_PROFILE", ""),
        "image": environment.get("JUPYTER_IMAGE", ""),
        "gpus": granted(environment) or 0,
        "s3": {"bucket": bucket, "endpoint": endpoint} if bucket else None,
    }


def status(
    bill: Mapping[str, Any], started: datetime, activity: Mapping[str, Any]
) -> dict[str, Any]:
    """`GET api/status`; ``started`` counts where the ledger does not know better."""
    since = datetime.fromisoformat(bill["started"]) if bill["started"] else started
    seconds = int((datetime.now(UTC) - since).total_seconds())
    return {
        **facts(),
        **bill,
        "started": rfc3339(since),
        "uptime_seconds": max(0, seconds),
        "activity": activity,
    }
