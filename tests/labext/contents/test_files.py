"""Downloads at `/files/`: streamed, with ranges, and safe to open in a browser."""

from __future__ import annotations

import contextlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import httpx
import psutil
import pytest

from gpucloud_labext.contents import S3ContentsManager
from gpucloud_labext.contents.bucket import StoreError
from gpucloud_labext.contents.files import parse_range

from . import servers
from .servers import TOKEN, Drive

DATA = bytes(range(256)) * 40_000  # ten blocks


def test_a_download_is_described_well(drive: Drive) -> None:
    drive.put("ä b.html", b"<script>1</script>")
    answer = drive.api.files(f"{drive.s3}/ä b.html")
    assert (answer.status_code, answer.content) == (200, b"<script>1</script>")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Length"] == "18"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox allow-scripts" in answer.headers["Content-Security-Policy"]
    assert "Content-Encoding" not in answer.headers
    again = drive.api.files(
        f"{drive.s3}/ä b.html", headers={"If-None-Match": answer.headers["Etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    attached = drive.api.files(f"{drive.s3}/ä b.html", params={"download": 1})
    assert "attachment" in attached.headers["Content-Disposition"]
    head = drive.api.files(f"{drive.s3}/ä b.html", method="HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "18")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.ipynb", "application/x-ipynb+json"),
        ("a.txt", "text/plain; charset=UTF-8"),
        ("a.tar.gz", "application/gzip"),
        ("a.bz2", "application/octet-stream"),
        ("a.png", "image/png"),
        ("a.nothing", "application/octet-stream"),
        ("noending", "application/octet-stream"),
    ],
)
def test_types_come_from_names(drive: Drive, name: str, kind: str) -> None:
    drive.put(name)
    assert drive.api.files(f"{drive.s3}/{name}").headers["Content-Type"] == kind


def test_only_who_is_logged_in(drive: Drive) -> None:
    drive.put("a.txt", b"secret")
    for method in ("GET", "HEAD"):
        answer = httpx.request(method, f"{drive.api.url}/files/{drive.s3}/a.txt")
        assert answer.status_code in (302, 403)
        assert b"secret" not in answer.content


def test_ranges(drive: Drive) -> None:
    drive.put("big.bin", DATA)
    size = len(DATA)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-2000000", 100, 2_000_001),
        ("bytes=3000000-", 3_000_000, size),
        ("bytes=-5", size - 5, size),
        (f"bytes=5-{size * 2}", 5, size),
    ):
        answer = drive.api.files(f"{drive.s3}/big.bin", headers={"Range": asked})
        assert (answer.status_code, answer.content == DATA[start:end]) == (206, True), asked
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["Content-Length"] == str(end - start)
    beyond = drive.api.files(f"{drive.s3}/big.bin", headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    for ignored in ("lines=1-2", "bytes=0-1,5-6", "bytes=5-1", "bytes=x-", "nonsense"):
        answer = drive.api.files(f"{drive.s3}/big.bin", headers={"Range": ignored})
        assert (answer.status_code, len(answer.content)) == (200, size), ignored
    stale = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert drive.api.files(f"{drive.s3}/big.bin", headers=stale).status_code == 200


def test_range_headers_are_read_exactly() -> None:
    assert parse_range("bytes=0-", 0) == (0, 0)
    assert parse_range("bytes=-0", 10) == (10, 0)
    assert parse_range("bytes=-20", 10) == (0, 10)
    assert parse_range("bytes=--5", 10) is None
    assert parse_range("bytes=+1-2", 10) is None
    assert parse_range("bytes=1-\uff12", 10) is None
    assert parse_range(" BYTES = 2 - 3 ", 10) == (2, 2)


def test_folders_and_missing_files(drive: Drive) -> None:
    drive.put("d/x.txt")
    assert drive.api.files(f"{drive.s3}/d").status_code == 403
    assert drive.api.files("s3/").status_code == 403
    assert drive.api.files(f"{drive.s3}/none").status_code == 404


def test_an_empty_file(drive: Drive) -> None:
    drive.put("empty", b"")
    answer = drive.api.files(f"{drive.s3}/empty")
    assert (answer.status_code, answer.content) == (200, b"")
    assert drive.api.files(f"{drive.s3}/empty", headers={"Range": "bytes=0-"}).status_code == 416


def test_memory_stays_small(drive: Drive) -> None:
    drive.put("big.bin", os.urandom(2**20) * 150)
    child = drive.api.process.child
    assert child is not None
    process = psutil.Process(child.pid)
    before, most, seen = process.memory_info().rss, 0, 0
    with drive.api.http.stream("GET", f"/files/{drive.s3}/big.bin") as answer:
        for block in answer.iter_bytes(2**20):
            seen += len(block)
            most = max(most, process.memory_info().rss)
    assert seen == 150 * 2**20
    assert most - before < 40 * 2**20


def test_a_reader_who_leaves_stops_the_reading(drive: Drive) -> None:
    drive.put("big.bin", os.urandom(2**20) * 60)
    for _ in range(20):  # more than there are threads
        with drive.api.http.stream("GET", f"/files/{drive.s3}/big.bin") as answer:
            next(answer.iter_bytes(1000))
    assert drive.api.files(f"{drive.s3}/big.bin", headers={"Range": "bytes=0-3"}).status_code == 206


class Deaf(http.server.BaseHTTPRequestHandler):
    """Passes everything on but Range and If-Match, like older servers. (They are signed, so the
    answer is found by asking the store again with boto3.)"""

    store: servers.Store

    def do_GET(self) -> None:
        bucket, _, key = unquote(self.path[1:].split("?")[0]).partition("/")
        found = self.store.client().get_object(Bucket=bucket, Key=key)
        self._answer(found, found["Body"].read())

    def do_HEAD(self) -> None:
        bucket, _, key = unquote(self.path[1:].split("?")[0]).partition("/")
        self._answer(self.store.client().head_object(Bucket=bucket, Key=key), b"")

    def _answer(self, found: dict[str, object], body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", str(found["ETag"]))
        self.send_header("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT")
        self.send_header("Content-Length", str(found["ContentLength"]))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # our side skips bytes, then hangs up
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def deaf(own_store: servers.Store) -> Iterator[str]:
    handler = type("OwnDeaf", (Deaf,), {"store": own_store})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_ranges_also_where_the_store_ignores_them(
    deaf: str, own: Drive, alone: Callable[..., S3ContentsManager]
) -> None:
    own.put("big.bin", DATA)
    store = alone(endpoint_url=deaf).store
    entry = store.head(f"{own.name}/big.bin")
    assert entry is not None
    with store.open(entry, 2_000_000, 10) as body:
        assert body.read(10) == DATA[2_000_000:2_000_010]


def test_a_file_that_changed_is_not_mixed_up(
    own: Drive, alone: Callable[..., S3ContentsManager]
) -> None:
    own.put("a", b"one")
    store = alone().store
    entry = store.head(f"{own.name}/a")
    assert entry is not None
    own.put("a", b"other")
    with pytest.raises(StoreError, match="changed meanwhile"):
        store.open(entry, 0, 3)


def test_the_token_is_not_in_the_log(drive: Drive) -> None:
    drive.put("a.txt")
    drive.api.files(f"{drive.s3}/a.txt")
    text = drive.api.process.log.read_text()
    assert drive.store.keys[1] not in text
    assert f"token {TOKEN}" not in text
