"""TensorBoard's page, mended for a place below a prefix and behind `_xsrf`.

TensorBoard takes its page from a zip file that whoever starts it may give. Ours is its own with two
changes: fonts are asked for beside the page, not at the root of the host (where they are 404), and
a small script sends the `_xsrf` cookie with requests that are no GET, as Jupyter's pages do.
"""

from __future__ import annotations

import io
import zipfile
from typing import BinaryIO

from tensorboard import assets

PAGE = "index.html"
SCRIPT = "gpucloud-xsrf.js"
# Same origin only: the token must not reach other hosts. `_xsrf` of the longest path comes first.
XSRF_SCRIPT = b"""\
"use strict";
(() => {
  const token = () => {
    const found = document.cookie.match(/(?:^|; *)_xsrf=([^;]*)/);
    return found ? found[1] : "";
  };
  const needed = (method, url) =>
    !["GET", "HEAD"].includes(String(method || "GET").toUpperCase()) &&
    new URL(url, document.baseURI).origin === location.origin;

  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    open.call(this, method, url, ...rest);
    if (needed(method, url)) this.setRequestHeader("X-XSRFToken", token());
  };

  const plainFetch = window.fetch;
  window.fetch = (input, init) => {
    const request = new Request(input, init);
    if (needed(request.method, request.url)) request.headers.set("X-XSRFToken", token());
    return plainFetch(request);
  };
})();
"""


def provider() -> BinaryIO:
    """The zip file, as TensorBoard asks for it. Raises RuntimeError where it ships no page."""
    shipped = assets.get_default_assets_zip_provider()
    if shipped is None:
        raise RuntimeError("This TensorBoard was installed without its page (webfiles.zip).")
    mended = io.BytesIO()
    with shipped() as file, zipfile.ZipFile(file) as old, zipfile.ZipFile(mended, "w") as new:
        for name in old.namelist():
            if name.endswith("/"):  # a folder would be served as an empty file
                continue
            content = old.read(name)
            new.writestr(name, mend(content) if name == PAGE else content)
        new.writestr(SCRIPT, XSRF_SCRIPT)
    mended.seek(0)
    return mended


def mend(page: bytes) -> bytes:
    """The page with fonts beside it, and with the script before all others."""
    page = page.replace(b"url(/font-roboto/", b"url(font-roboto/")
    return page.replace(b"<head>", b'<head><script src="%s"></script>' % SCRIPT.encode(), 1)
