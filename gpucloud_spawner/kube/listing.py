"""Lists of objects as plain data, where the client's own objects would cost the event loop much."""

from __future__ import annotations

import json
from typing import Any

from kubernetes_asyncio.client import ApiException

TIMEOUT_SECONDS = 5.0


async def raw_items(list_method: Any, **options: Any) -> list[dict[str, Any]]:
    """What ``list_method`` of a Kubernetes client lists.

    Raises ApiException, aiohttp.ClientError, TimeoutError.
    """
    response = await list_method(
        _preload_content=False, _request_timeout=TIMEOUT_SECONDS, **options
    )
    async with response:
        if response.status != 200:
            raise ApiException(status=response.status, reason=response.reason)
        items: list[dict[str, Any]] = json.loads(await response.read())["items"]
        return items
