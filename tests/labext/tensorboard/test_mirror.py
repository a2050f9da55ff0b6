"""Logs on S3: shown, kept up to date, and not downloaded again; with every byte counted."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from gpucloud_labext.contents.bucket import Bucket
from gpucloud_labext.contents.connection import Connection, Settings
from gpucloud_labext.contents.errors import explain
from gpucloud_labext.s3.failures import StoreErrors
from gpucloud_labext.tensorboard.mirror import OVERLAP, Mirror, wanted

from ..contents.servers import BUCKET, TEAM_BUCKET, Store, wait_for
from . import runs
from .conftest import Server
from .counting import CountingProxy

MIB = 2**20
MIRROR = "gpucloud_labext.tensorboard.mirror"


class Remote:
    """A prefix of its own, and a mirror of it that is counted."""

    def __init__(self, store: Store, proxy: CountingProxy, target: Path) -> None:
        self.prefix = f"m{uuid.uuid4().hex[:8]}"
        self.proxy = proxy
        self.target = target
        self.client = store.client()
        access, secret = store.keys
        settings = Settings(
            bucket=BUCKET,
            endpoint_url=proxy.endpoint,
            region_name="us-east-1",
            access_key_id=access,
            secret_access_key=secret,
        )
        self.bucket = Bucket(Connection(settings))
        self.mirror = Mirror(self.bucket, self.prefix, target, 100 * MIB)

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=data)

    def sync(self) -> int:
        """Look once; bytes of objects that it cost."""
        self.proxy.reset()
        self.mirror.sync(self.mirror.listing())
        return self.proxy.downloaded

    def found(self) -> dict[str, bytes]:
        files = [path for path in self.target.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.target)): path.read_bytes() for path in files}


@pytest.fixture
def remote(store: Store, tmp_path: Path) -> Iterator[Remote]:
    with CountingProxy(store.port) as proxy:
        yield Remote(store, proxy, tmp_path / "copy")


def test_only_what_is_new_is_downloaded(remote: Remote) -> None:
    big, other = os.urandom(3 * MIB), os.urandom(MIB)
    remote.put("a/events.out.tfevents.1", big)
    remote.put("b/events.out.tfevents.2", other)
    assert remote.sync() == 4 * MIB
    assert remote.sync() == 0
    assert not [r for r in remote.proxy.requests if "list-type" not in r], "a look is a listing"

    big += b"more"
    remote.put("a/events.out.tfevents.1", big)
    assert remote.sync() == OVERLAP + len(b"more")
    assert remote.found() == {"a/events.out.tfevents.1": big, "b/events.out.tfevents.2": other}


def test_what_was_replaced_or_deleted_is_so_here(remote: Remote) -> None:
    first, second = os.urandom(100_000), os.urandom(200_000)
    remote.put("events.out.tfevents.1", first)
    remote.put("x/events.out.tfevents.2", first)
    remote.sync()
    remote.put("events.out.tfevents.1", second)  # longer, and other from its start
    remote.client.delete_object(Bucket=BUCKET, Key=f"{remote.prefix}/x/events.out.tfevents.2")
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": second}
    remote.put("events.out.tfevents.1", b"short")
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": b"short"}
    remote.put("events.out.tfevents.1", b"")
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": b""}


def test_a_prefix_is_whole_parts(remote: Remote) -> None:
    remote.client.put_object(
        Bucket=BUCKET, Key=f"{remote.prefix}-2/events.out.tfevents.1", Body=b"of another"
    )
    remote.put("events.out.tfevents.1", b"mine")
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": b"mine"}


def test_an_interrupted_download_goes_on_where_it_was(remote: Remote) -> None:
    data = os.urandom(2 * MIB)
    remote.put("events.out.tfevents.1", data)
    remote.target.mkdir()
    (remote.target / "events.out.tfevents.1").write_bytes(data[:MIB])
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": data}


def test_an_error_that_breaks_off_is_one_of_the_stores(remote: Remote) -> None:
    """botocore lets out what is below it: whoever does not know that ends with it."""
    remote.put("events.out.tfevents.1", b"mine")
    remote.proxy.torn = 1
    with pytest.raises(StoreErrors) as caught:
        remote.sync()
    assert not isinstance(caught.value, BotoCoreError | ClientError | OSError)
    told = explain(caught.value, "x", BUCKET, "http://s3")
    assert told.status_code == 503 and "does not answer" in str(told.log_message)
    remote.sync()
    assert remote.found() == {"events.out.tfevents.1": b"mine"}


def test_more_than_the_limit_leaves_the_oldest_out(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    small = Mirror(remote.bucket, remote.prefix, remote.target, MIB)
    remote.put("old/events.out.tfevents.1", os.urandom(MIB // 2))
    remote.put("new/events.out.tfevents.2", os.urandom(MIB // 2 + 1))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            small.sync(small.listing())
    assert len(remote.found()) == 1
    assert len([r for r in caplog.records if "left out" in r.message]) == 1


def test_checkpoints_and_data_are_not_copied() -> None:
    names = [
        "train/events.out.tfevents.1",
        "train/checkpoint",
        "train/model.ckpt-100.data-00000-of-00001",
        "train/plugins/profile/2026/host.xplane.pb",
        "data.csv",
        "embedding/projector_config.pbtxt",
        "embedding/00001/default/tensors.tsv",
        "embedding-2/tensors.tsv",
    ]
    assert wanted(names) == [names[0], names[3], names[5], names[6]]


LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>"""
ENTRY = """<Contents><Key>p/{}</Key><Size>3</Size><ETag>"e"</ETag>
<LastModified>2026-11-23T10:00:00.000Z</LastModified></Contents>"""


def test_keys_that_are_no_paths_stay_where_they_are(tmp_path: Path) -> None:
    """A store may hold anything: nothing is written outside of the copy."""
    names = ["../x.tfevents", "a/../../y.tfevents", "/etc/z.tfevents", "b//c.tfevents"]
    names += ["d/" + "e" * 300 + ".tfevents", "good.tfevents", "good.tfevents/below.tfevents"]
    entries = "".join(ENTRY.format(name) for name in names)

    class Store(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            is_list = "list-type" in self.path
            data = LISTING.format(entries).encode() if is_list else b"abc"
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Mon, 23 Nov 2026 10:00:00 GMT")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_GET = do_HEAD = answer

        def log_message(self, format: str, *args: object) -> None:
            """Not to the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            settings = Settings(
                bucket="b",
                endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
                region_name="us-east-1",
                access_key_id="k",
                secret_access_key="s",
            )
            target = tmp_path / "inner" / "copy"
            mirror = Mirror(Bucket(Connection(settings)), "p", target, MIB)
            mirror.sync(mirror.listing())
        finally:
            server.shutdown()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    # of a file and a folder of one name, one can be here
    assert len(files) == 1
    assert files[0].parent in (target, target / "good.tfevents")
    assert files[0].read_bytes() == b"abc"


# --- a whole TensorBoard of it ---


def upload(store: Store, folder: Path, bucket: str, prefix: str) -> None:
    client = store.client()
    for file in folder.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder)}"
            client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())


def test_a_training_that_uploads_is_followed(server: Server, store: Store, tmp_path: Path) -> None:
    prefix = f"jobs/{uuid.uuid4().hex[:8]}/tensorboard"
    runs.scalars(tmp_path / "logs" / "worker-0", 3)
    upload(store, tmp_path / "logs", BUCKET, prefix)
    board = server.open(f"s3://{BUCKET}/{prefix}/")
    wait_for(lambda: server.steps(board, "worker-0") == [0, 1, 2], "chart")
    [file] = (tmp_path / "logs" / "worker-0").iterdir()
    runs.scalars(tmp_path / "more", 5)
    [longer] = (tmp_path / "more").iterdir()
    shutil.copy(longer, file)  # as if it had grown
    runs.scalars(tmp_path / "logs" / "worker-1", 2)
    upload(store, tmp_path / "logs", BUCKET, prefix)
    wait_for(lambda: server.steps(board, "worker-1") == [0, 1], "chart of a new worker")
    assert server.open(f"s3/{prefix}")["id"] == board["id"]


def test_a_teams_bucket_is_shown(server: Server, store: Store, tmp_path: Path) -> None:
    runs.scalars(tmp_path / "logs", 2)
    upload(store, tmp_path / "logs", TEAM_BUCKET, "shared/run")
    board = server.open(f"s3://{TEAM_BUCKET}/shared")
    wait_for(lambda: server.steps(board, "run") == [0, 1], "chart")


def test_trouble_in_the_store_ends_nothing_and_a_lost_copier_is_told(
    store: Store, tmp_path: Path
) -> None:
    logdir = f"s3://{BUCKET}/troubled"
    runs.scalars(tmp_path / "logs" / "a", 2)
    upload(store, tmp_path / "logs", BUCKET, "troubled")
    with CountingProxy(store.port) as proxy:
        environment = {**store.environment(), "AWS_ENDPOINT_URL_S3": proxy.endpoint}
        server = Server(tmp_path / "server", environment)
        try:
            server.start()
            board = server.open(logdir)
            wait_for(lambda: server.steps(board, "a") == [0, 1], "chart")
            proxy.torn = 3
            runs.scalars(tmp_path / "logs" / "b", 3)
            upload(store, tmp_path / "logs", BUCKET, "troubled")
            wait_for(lambda: server.steps(board, "b") == [0, 1, 2], "chart after the trouble")
            assert proxy.torn == 0
            [copier] = [p for p in server.processes() if MIRROR in p.cmdline()]
            copier.kill()
            wait_for(lambda: server.model(board["id"])["state"] == "failed", "the end is told")
            said = server.model(board["id"])["log"]
            assert said[-1] == "The copying from S3 has ended by itself (exit code -9)."
            assert server.open(logdir)["id"] != board["id"]  # it can be started again
        finally:
            server.close()
