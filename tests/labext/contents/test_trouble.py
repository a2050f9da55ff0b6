"""When S3 says no, or nothing: words for people, a home that works on, nothing half done."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
import pytest
from tornado.web import HTTPError

from gpucloud_labext.contents import S3ContentsManager

from . import servers
from .servers import BUCKET, Drive, wait_for
from .test_uploads import CHUNK, chunk, send

Make = Callable[..., S3ContentsManager]


class Refuses(http.server.BaseHTTPRequestHandler):
    """Answers every request with an S3 error; which one is in the path after the bucket."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code, status = "AccessDenied", 403
        for known, value in (("QuotaExceeded", 403), ("SlowDown", 503), ("EntityTooLarge", 400)):
            if known in self.path:
                code, status = known, value
        reading = self.command in ("GET", "HEAD")
        if reading and code != "AccessDenied":  # looking is allowed, only writing fails
            body = b"<ListBucketResult></ListBucketResult>"
            status = 404 if self.command == "HEAD" else 200
        else:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing(alone: Make) -> Iterator[S3ContentsManager]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield alone(endpoint_url=f"http://127.0.0.1:{server.server_address[1]}")
    server.shutdown()
    server.server_close()
    thread.join()


async def refused(asked: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(HTTPError) as error:
        await asked
    return error.value.status_code, str(error.value.log_message)


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("QuotaExceeded.txt", 507, "quota"),
        ("EntityTooLarge.txt", 413, "size"),
        ("SlowDown.txt", 503, "try again"),
    ],
)
async def test_refused_writes_in_words(
    refusing: S3ContentsManager, name: str, status: int, said: str
) -> None:
    body = {"type": "file", "format": "text", "content": "x"}
    found, words = await refused(refusing.save(body, name))
    assert (found, said in words) == (status, True), words


async def test_access_denied_in_words(refusing: S3ContentsManager) -> None:
    for path in ("", "a.txt"):
        status, words = await refused(refusing.get(path))
        assert (status, "denies access" in words) == (403, True)


async def test_a_bad_key_in_words(alone: Make) -> None:
    status, words = await refused(alone(secret_access_key="wrong").get(""))
    assert (status, "refuses this server's key" in words) == (403, True)


async def test_no_key_in_words(alone: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    status, words = await refused(alone(access_key_id=None, secret_access_key=None).get(""))
    assert (status, "no S3 key" in words) == (403, True)


async def test_a_hanging_store_in_words(alone: Make) -> None:
    with socket.socket() as hole:  # takes connections and says nothing
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        manager = alone(
            endpoint_url=f"http://127.0.0.1:{hole.getsockname()[1]}",
            s3fs_config_kwargs={"read_timeout": 0.3},
        )
        status, words = await refused(manager.get("a.txt"))
    assert (status, "does not answer" in words) == (503, True)


def test_a_missing_bucket_in_words(own: Drive) -> None:
    body = {"type": "file", "format": "text", "content": "x"}
    for method, path in (("GET", "s3-gone"), ("GET", "s3-gone/a.txt"), ("PUT", "s3-gone/a.txt")):
        status, words = own.api.refusal(method, path, json=body)
        assert (status, "bucket 'nowhere' does not exist" in words) == (404, True), words
    assert {"s3", "s3-gone"} <= set(own.api.names(""))


def test_a_renewed_key_needs_no_restart(own: Drive) -> None:
    file = own.api.home.parent / "credentials"
    own.put("a.txt")
    servers.write_keys(file, own.store.keys[0], "not this one")
    status, words = own.api.refusal("GET", own.s3)
    assert (status, "refuses this server's key" in words) == (403, True)
    servers.write_keys(file, *own.store.keys)
    assert own.api.names(own.s3) == ["a.txt"]
    text = own.api.process.log.read_text()
    assert not [secret for secret in ("not this one", own.store.keys[1]) if secret in text]


def test_the_home_works_while_s3_hangs(own: Drive) -> None:
    own.put("a.txt")
    child = own.store.process.child
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    # its threads go on until one of them has seen the signal
    stopped = psutil.STATUS_STOPPED
    wait_for(lambda: psutil.Process(child.pid).status() == stopped, "the S3 server hangs")
    with ThreadPoolExecutor(12) as pool:
        hanging = [pool.submit(own.api.names, own.s3) for _ in range(12)]
        own.api.put(f"{own.name}/a.txt", "home")
        assert {own.name, "s3"} <= set(own.api.names(""))
        assert own.api.get(f"{own.name}/a.txt")["content"] == "home"
        assert not any(future.done() for future in hanging)
        child.send_signal(signal.SIGCONT)
        assert [future.result(60) for future in hanging] == [["a.txt"]] * 12


# --- the server killed in the middle: `own` has servers for itself ---


def test_a_save_while_s3_is_down_and_again(own: Drive) -> None:
    own.put("a.txt", b"old")
    own.store.kill()
    body = {"type": "file", "format": "text", "content": "new"}
    started = time.monotonic()
    status, words = own.api.refusal("PUT", f"{own.s3}/a.txt", json=body)
    assert (status, "does not answer" in words, own.store.endpoint in words) == (503, True, True)
    assert time.monotonic() - started < 30
    assert "s3" in own.api.names("")
    own.store.start()
    assert own.read("a.txt") == b"old"
    own.api.put(f"{own.s3}/a.txt", "new")
    assert own.read("a.txt") == b"new"


def test_a_kill_in_the_middle_of_saves(own: Drive) -> None:
    """Whenever it comes, the file is one of those that were sent, whole."""
    size = 20_000_000
    own.api.put(f"{own.s3}/a.txt", "0" * size)
    for attempt in range(3):
        with ThreadPoolExecutor(1) as pool:
            body = {"type": "file", "format": "text", "content": str(attempt + 1) * size}
            saving = pool.submit(own.api.call, "PUT", f"{own.s3}/a.txt", json=body)
            servers.wait_for(partial(begun_write, own, saving), "a write")
            own.store.kill()
            status = saving.result(60).status_code
        own.store.start()
        data = own.read("a.txt")
        assert len(data) == size
        assert len(set(data)) == 1
        assert status in (200, 503)
    own.api.put(f"{own.s3}/a.txt", "again")
    assert own.read("a.txt") == b"again"


def begun_write(own: Drive, saving: Future[Any]) -> bool:
    """Has the S3 server written a first byte, or all?"""
    objects = own.store.process.log.parent / "objects"
    for path in objects.rglob(".rclone_temp_*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size:
                return True
    return saving.done()


def test_a_kill_in_the_middle_of_an_upload(own: Drive) -> None:
    own.put("f", b"old")
    send(own, "f", 1, b"x" * 9 * CHUNK)
    own.store.kill()
    status, words = own.api.refusal("PUT", f"{own.s3}/f", json=chunk(2, b"y" * 9 * CHUNK))
    if status == 200:  # pragma: no cover - the part was still being sent
        status, words = own.api.refusal("PUT", f"{own.s3}/f", json=chunk(-1, b""))
    assert (status, "does not answer" in words) == (503, True)
    own.store.start()
    assert own.read("f") == b"old"
    send(own, "f", 1, b"new")
    send(own, "f", -1, b"!")
    assert own.read("f") == b"new!"
    assert own.uploads() == []


@pytest.mark.parametrize("into_home", [False, True])
def test_a_kill_in_the_middle_of_a_folder_move(own: Drive, into_home: bool) -> None:
    names = [f"{n:03}.bin" for n in range(200)]
    for name in names:
        own.put(f"d/{name}", name.encode() * 1000)
    target = f"{own.name}/moved" if into_home else f"{own.s3}/moved"
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(own.api.call, "PATCH", f"{own.s3}/d", json={"path": target})
        servers.wait_for(lambda: begun(own, into_home) or moving.done(), "a first copy")
        own.store.kill()
        answer = moving.result(90)
    own.store.start()
    moved = own.home / "moved"
    if answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        assert "does not answer" in answer.json()["message"]
        assert not moved.exists()
        assert complete(own, names), "a file was lost"
        own.api.rename(f"{own.s3}/d", target)
    if into_home:
        assert sorted(p.name for p in moved.iterdir()) == names
        assert all((moved / n).read_bytes() == n.encode() * 1000 for n in names)
        assert own.in_home() == ["moved"]
    else:
        assert sorted(own.found("moved/")) == [f"moved/{n}" for n in names]
        assert all(own.read(f"moved/{n}") == n.encode() * 1000 for n in names[::20])
    assert own.found("d/") == []


def begun(own: Drive, into_home: bool) -> bool:
    if into_home:
        return any(own.home.glob(".gpucloud-*/copy/*"))
    objects = own.store.process.log.parent / "objects"
    return any((objects / BUCKET / own.name / "moved").glob("*.bin"))


def complete(own: Drive, names: list[str]) -> bool:
    """Is every file at its old or its new place?"""
    there = {key.rsplit("/", 1)[-1] for key in own.found()}
    return there >= set(names)


def test_a_kill_in_the_middle_of_a_move_out_of_the_home(own: Drive) -> None:
    (own.home / "d").mkdir()
    for n in range(30):
        (own.home / "d" / f"{n}.bin").write_bytes(os.urandom(2**20))
    before = {p.name: p.read_bytes() for p in (own.home / "d").iterdir()}
    with ThreadPoolExecutor(1) as pool:
        body = {"path": f"{own.s3}/d"}
        moving = pool.submit(own.api.call, "PATCH", f"{own.name}/d", json=body)
        objects = own.store.process.log.parent / "objects" / BUCKET / own.name / "d"
        servers.wait_for(lambda: any(objects.glob("*.bin")) or moving.done(), "a first copy")
        own.store.kill()
        answer = moving.result(90)
    own.store.start()
    if answer.status_code != 200:
        assert answer.status_code == 503
        assert {p.name: p.read_bytes() for p in (own.home / "d").iterdir()} == before
        own.api.delete(f"{own.s3}/d") if own.found("d/") else None
        own.api.rename(f"{own.name}/d", f"{own.s3}/d")
    assert {k.rsplit("/", 1)[-1]: own.read(k) for k in own.found("d/")} == before
    assert own.in_home() == []
