"""The proxy subresource of nodes, as far as the kubelets here have something to tell."""

from __future__ import annotations

import aiohttp
from aiohttp import web

from .errors import internal, method_not_allowed, not_implemented
from .kubelets import Kubelets

SERVED = ("stats/summary",)


class NodeProxy:
    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    async def serve(self, request: web.Request, node: str) -> web.StreamResponse:
        path = request.path.partition(f"/nodes/{node}/proxy")[2].strip("/")
        if path not in SERVED:
            raise not_implemented(f"nodes/proxy but for {', '.join(SERVED)}")
        if request.method != "GET":
            raise method_not_allowed()
        url = self._kubelets.node_url(node, f"/{path}")
        session, headers = self._kubelets.session, self._kubelets.headers
        try:
            async with session.get(url, headers=headers) as answer:
                body = await answer.read()
        except aiohttp.ClientError as error:
            raise internal(f"Get {str(url)!r}: {error}") from error
        return web.Response(body=body, status=answer.status, content_type=answer.content_type)
