"""TensorBoard's pages, mended for a place below a prefix and behind `_xsrf`.

Around TensorBoard's WSGI application. Its pages (its own, and the projector's) get two changes:
fonts are asked for below the prefix, not at the root of the host (where they are 404), and a small
script sends the `_xsrf` cookie with every request of its scripts, as Jupyter's pages do: JupyterHub
wants it for reading, too, as pages of other users may be of the same host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

SCRIPT = "gpucloud-xsrf.js"
# Same origin only: the token must not reach other hosts. `_xsrf` of the longest path comes first.
XSRF_SCRIPT = b"""\
"use strict";
(() => {
  const token = () => {
    const found = document.cookie.match(/(?:^|; *)_xsrf=([^;]*)/);
    return found ? found[1] : "";
  };
  const needed = (url) => {
    const { origin, protocol } = new URL(url, document.baseURI);
    return origin === location.origin && protocol === location.protocol;
  };

  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    open.call(this, method, url, ...rest);
    if (needed(url)) this.setRequestHeader("X-XSRFToken", token());
  };

  const plainFetch = window.fetch;
  window.fetch = (input, init) => {
    const request = new Request(input, init);
    if (needed(request.url)) request.headers.set("X-XSRFToken", token());
    return plainFetch(request);
  };
})();
"""


class Mended:
    """TensorBoard's application with mended pages."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        if request.path == f"/{SCRIPT}":
            script = Response(XSRF_SCRIPT, mimetype="text/javascript")
            script.cache_control.no_cache = True
            return script(environ, start_response)
        if request.method != "GET" or not request.path.endswith((".html", "/")):
            whole: Iterable[bytes] = self._application(environ, start_response)
            return whole
        return self._page(request)(environ, start_response)

    def _page(self, request: Request) -> Response:
        plain = {**request.environ, "HTTP_ACCEPT_ENCODING": "identity"}
        page = Response.from_app(self._application, plain, buffered=True)
        if page.mimetype != "text/html" or page.status_code != 200:
            return page
        page.data = mend(page.data, "../" * (request.path.count("/") - 1))
        return page


def mend(page: bytes, root: str) -> bytes:
    """The page with fonts below ``root``, a relative path, and with the script as the first."""
    page = page.replace(b"url(/font-roboto/", b"url(%sfont-roboto/" % root.encode())
    script = b'<script src="%s%s"></script>' % (root.encode(), SCRIPT.encode())
    return page.replace(b"<head>", b"<head>" + script, 1)
