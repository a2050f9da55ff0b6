"""A proxy in front of an S3 server that counts what goes through it, in bytes of bodies."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 2**16


class CountingProxy:
    """Passes requests on unchanged (their signature covers the Host header)."""

    def __init__(self, port: int) -> None:
        self.bytes_of: dict[str, int] = {}  # by path, of GETs of objects
        self.requests: list[str] = []
        self.torn = 0  # so many downloads are answered with an error that does not arrive whole
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                inner = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                # the client may leave in the middle of an answer
                with closing(inner), suppress(ConnectionError):
                    self._ask(inner, body)

            def _ask(self, inner: http.client.HTTPConnection, body: bytes) -> None:
                inner.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    inner.putheader(name, value)
                inner.endheaders(body or None)
                proxy.requests.append(f"{self.command} {self.path}")
                if proxy.torn and self.command == "GET" and "list-type" not in self.path:
                    proxy.torn -= 1
                    self._tear()
                else:
                    self._relay(inner.getresponse())

            def _tear(self) -> None:
                self.send_response(400)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"5\r\n<?xml\r\n")  # and no end
                self.close_connection = True

            def _relay(self, answer: http.client.HTTPResponse) -> None:
                data_is_known = answer.headers.get("Content-Length") is not None
                whole = b"" if data_is_known else answer.read()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                if not data_is_known:
                    self.send_header("Content-Length", str(len(whole)))
                self.end_headers()
                self.wfile.write(whole)
                path = self.path.partition("?")[0]
                while self.command != "HEAD" and (block := answer.read(BLOCK)):
                    # before it is sent: whoever has it may ask for the sum at once
                    if "list-type" not in self.path:
                        proxy.bytes_of[path] = proxy.bytes_of.get(path, 0) + len(block)
                    self.wfile.write(block)

            do_GET = do_HEAD = do_PUT = do_POST = pass_on

            def log_message(self, format: str, *args: object) -> None:
                """Not to the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def downloaded(self) -> int:
        """Bytes of objects so far."""
        return sum(self.bytes_of.values())

    def reset(self) -> None:
        self.bytes_of.clear()
        self.requests.clear()

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
