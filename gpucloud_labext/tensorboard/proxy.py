"""The only way to a TensorBoard: for who is logged in, through this server, to its own socket.

jupyter-server-proxy's handler, with what it lacks for this: nothing of the target comes from the
request (it names an id, the manager knows the socket), `_xsrf` is asked for, answers are passed on
as they come over connections that stay open, and no request counts as activity: a tab that reloads
by itself must not keep a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import aiohttp
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server_proxy.handlers import ProxyHandler
from tornado import web
from tornado.iostream import StreamClosedError
from yarl import URL

from ..errors import LabError
from ..handlers.errors import ErrorsOfGPUCloud
from .instance import RUNNING, Instance

if TYPE_CHECKING:
    from ..extension import GPUCloudExtension

# answers up to this size go out in one piece
WHOLE = 1 << 20
# of one connection, not of the message (RFC 9110, 7.6.1); Server and Date are this server's
HOP_BY_HOP = {
    "connection",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# what TensorBoard must not learn, or may not set
PRIVATE = {"authorization", "cookie", "host", "set-cookie", "x-xsrftoken"}
# files of TensorBoard itself; data have other names
STATIC = (".css", ".js", ".svg", ".ttf", ".wasm", ".woff2")
FRAMES = "frame-ancestors 'self'"


class TensorBoardHandler(ErrorsOfGPUCloud, ProxyHandler):
    """`<base_url>/gpucloud/tensorboard/<id>/...`"""

    auth_resource = "gpucloud"

    def initialize(self, extension: GPUCloudExtension) -> None:
        self.extension = extension
        self.update_last_activity = False

    def check_xsrf_cookie(self) -> None:
        """As every page of Jupyter; jupyter-server-proxy leaves it to the proxied.

        JupyterHub's check wants the token for reading by scripts, too. Browsers load fonts and
        workers in the same way, without a token; those are of TensorBoard, the same for everybody.
        """
        if self.request.method in ("GET", "HEAD") and self.request.path.endswith(STATIC):
            return
        JupyterHandler.check_xsrf_cookie(self)

    async def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Who is not logged in gets to the login page, a WebSocket or another verb 403."""
        if self._wants_websocket():
            # jupyter-server-proxy's own check, without the way to a login page
            await JupyterHandler.prepare(self)
            if not self.current_user:
                raise LabError(403, "not_logged_in", "Log in, or send the server's token.")
            raise LabError(400, "no_websocket", "TensorBoard has no WebSockets.")
        await super().prepare(*args, **kwargs)
        if self._finished:  # on its way to the login page
            return
        action = "read" if self.request.method in ("GET", "HEAD") else "write"
        allowed = self.authorizer.is_authorized(self, self.current_user, action, self.auth_resource)
        if not await ensure_async(allowed):
            raise LabError(403, "forbidden", "You may not do this on this server.")

    def _wants_websocket(self) -> bool:
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    def compute_etag(self) -> None:
        """TensorBoard says itself what may be kept."""

    async def http_get(self, id: str, path: str) -> None:
        """A page, data, a download."""
        await self._pass_on(id, path)

    async def head(self, id: str, path: str) -> None:
        """As GET, without the content."""
        await self._pass_on(id, path)

    async def post(self, id: str, path: str) -> None:
        """A question that is too long for an address."""
        await self._pass_on(id, path)

    def _refuse(self, id: str, path: str) -> None:
        raise LabError(405, "method_not_allowed", "TensorBoard knows GET, HEAD and POST.")

    put = delete = patch = options = _refuse

    async def _pass_on(self, id: str, path: str) -> None:
        instance = self.extension.tensorboards.get(id)
        instance.touch()
        if await instance.settled() != RUNNING:
            raise LabError(
                502,
                "tensorboard_failed",
                f"{instance.reason} Log directory: {instance.logdir.text}",
                log=instance.log(),
            )
        self.proxy_base = f"gpucloud/tensorboard/{id}"
        uri = self.get_client_uri("http", "localhost", 0, path)
        try:
            async with instance.session.request(
                self.request.method or "GET",
                # already quoted: what the browser sent is what TensorBoard gets
                URL(uri.replace("http://localhost:0", "http://localhost", 1), encoded=True),
                headers=self._request_headers(),
                data=self.request.body or None,
                allow_redirects=False,
            ) as answer:
                await self._answer(answer, path)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._broken(instance, error)
        finally:
            instance.touch()  # a long download is no idleness either

    def _request_headers(self) -> list[tuple[str, str]]:
        dropped = HOP_BY_HOP | PRIVATE | {"content-length"}
        headers = [h for h in self.request.headers.get_all() if h[0].lower() not in dropped]
        return [*headers, ("X-Forwarded-Prefix", self._get_context_path("localhost", 0))]

    async def _answer(self, answer: aiohttp.ClientResponse, path: str) -> None:
        self.set_status(answer.status, answer.reason)
        self._copy_headers(answer.headers.items(), path)
        if answer.content_type == "text/html":
            _ = self.xsrf_token  # sets the cookie that the page's script sends
        length = answer.content_length
        if self.request.method == "HEAD" or answer.status in (204, 304):
            self.finish()
        elif length is not None and length <= WHOLE:
            self.finish(await answer.read())
        else:
            try:
                async for block in answer.content.iter_any():
                    self.write(block)
                    # not self.flush: jupyter-server-proxy's wrapper gives nothing to wait for
                    await JupyterHandler.flush(self)
                self.finish()
            except StreamClosedError:  # the browser has left
                return

    def _copy_headers(self, headers: Iterable[tuple[str, str]], path: str) -> None:
        self.clear_header("Content-Type")
        for name, value in headers:
            lower = name.lower()
            if lower in HOP_BY_HOP or lower in PRIVATE:
                continue
            if lower == "location":
                value = self._rewrite_location_header(value, "localhost", 0, path)
            if lower == "content-security-policy":
                # TensorBoard's own says nothing about who may show it in a frame
                value = f"{value};{FRAMES}"
            self.set_header(name, value)

    def _broken(self, instance: Instance, error: Exception) -> None:
        self.log.warning("TensorBoard %s does not answer: %s", instance.id, error)
        if self._headers_written:
            # too late for an error: an answer that ends early must not look complete
            self.detach().close()
            return
        raise LabError(
            502, "tensorboard_failed", "TensorBoard does not answer.", log=instance.log()
        ) from error

    # --- errors: pages for people, JSON for programs ---

    def write_refusal(self, error: LabError) -> None:
        self.set_status(error.status)
        self.set_header("Cache-Control", "no-store")
        if "text/html" not in self.request.headers.get("Accept", ""):
            self.finish(error.as_data())
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", f"default-src 'none'; sandbox; {FRAMES}")
        self.finish(_page(error))


class AddSlashHandler(JupyterHandler):
    """The page's own addresses are relative: without the last slash they would miss."""

    def initialize(self, extension: GPUCloudExtension) -> None:
        self.extension = extension

    @web.authenticated
    def get(self, id: str) -> None:
        """To the same address with a slash."""
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{self.base_url}gpucloud/tensorboard/{id}/{query}")


def _page(error: LabError) -> str:
    log = "\n".join(str(line) for line in error.details.get("log", ()))
    shown = f"<pre>{escape(log)}</pre>" if log else ""
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>TensorBoard</title>"
        f"<h1>TensorBoard is not here</h1><p>{escape(error.message)}</p>{shown}</html>"
    )
