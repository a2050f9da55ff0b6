"""Files that the browser sends in chunks."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from . import servers
from .servers import Drive, wait_for

CHUNK = 2**20  # JupyterLab's


def chunk(number: int, data: bytes) -> dict[str, Any]:
    content = base64.b64encode(data).decode()
    return {"type": "file", "format": "base64", "content": content, "chunk": number}


def send(drive: Drive, name: str, number: int, data: bytes) -> Any:
    answer = drive.api.call("PUT", f"{drive.s3}/{name}", json=chunk(number, data))
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def test_an_upload_appears_whole_at_its_end(drive: Drive) -> None:
    data = os.urandom(CHUNK) * 19 + b"rest"  # two parts and a bit
    pieces = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    for number, piece in enumerate(pieces[:-1], 1):
        model = send(drive, "big.bin", number, piece)
        assert (model["size"], model["type"]) == (number * CHUNK, "file")
    assert drive.found() == []
    assert drive.uploads() == [f"{drive.name}/big.bin"]
    assert send(drive, "big.bin", -1, pieces[-1])["size"] == len(data)
    assert drive.read("big.bin") == data
    assert drive.uploads() == []


@pytest.mark.parametrize("size", [0, 1, 8 * CHUNK, 8 * CHUNK + 1])
def test_any_size(drive: Drive, size: int) -> None:
    send(drive, "f", 1, b"x" * size)
    send(drive, "f", -1, b"end")
    assert drive.read("f") == b"x" * size + b"end"
    assert drive.uploads() == []


def test_an_upload_over_a_file_switches_at_its_end(drive: Drive) -> None:
    drive.put("f", b"old")
    send(drive, "f", 1, b"n" * 9 * CHUNK)
    assert drive.read("f") == b"old"
    send(drive, "f", -1, b"ew")
    assert len(drive.read("f")) == 9 * CHUNK + 2


def test_chunks_out_of_order_are_refused(drive: Drive) -> None:
    send(drive, "f", 1, b"one")
    for number in (1 + 2, 7):
        body = chunk(number, b"x")
        status, words = drive.api.refusal("PUT", f"{drive.s3}/f", json=body)
        assert (status, "interrupted" in words) == (400, True)
    assert drive.api.refusal("PUT", f"{drive.s3}/other", json=chunk(-1, b"x"))[0] == 400
    assert drive.api.refusal("PUT", f"{drive.s3}/no/f", json=chunk(1, b"x"))[0] == 404
    body = chunk(1, b"x") | {"type": "notebook"}
    assert drive.api.refusal("PUT", f"{drive.s3}/n.ipynb", json=body)[0] == 400
    assert drive.found() == []


def test_a_save_ends_an_upload_of_the_same_name(drive: Drive) -> None:
    send(drive, "f", 1, b"u" * 9 * CHUNK)
    drive.api.put(f"{drive.s3}/f", "saved")
    assert drive.uploads() == []
    assert drive.api.refusal("PUT", f"{drive.s3}/f", json=chunk(-1, b"x"))[0] == 400
    assert drive.read("f") == b"saved"


def test_memory_stays_small(drive: Drive) -> None:
    """200 MiB here; the bench sends 1 GiB through the same code."""
    child = drive.api.process.child
    assert child is not None
    process = psutil.Process(child.pid)
    before, most = process.memory_info().rss, 0
    body = chunk(1, os.urandom(4 * CHUNK))
    for number in range(1, 51):
        answer = drive.api.call("PUT", f"{drive.s3}/big", json=body | {"chunk": number})
        assert answer.status_code < 300
        most = max(most, process.memory_info().rss)
    send(drive, "big", -1, b"")
    assert (
        drive.store.client().head_object(Bucket="ada", Key=f"{drive.name}/big")["ContentLength"]
        == 200 * 2**20
    )
    assert most - before < 100 * 2**20


CONFIG = """
c.ServerApp.contents_manager_class = 'gpucloud_labext.contents.GPUCloudContentsManager'
c.S3ContentsManager.upload_idle_seconds = 0.5
"""


def test_uploads_that_stand_still_are_aborted(tmp_path: Path, own_store: servers.Store) -> None:
    with servers.jupyter(tmp_path / "j", own_store.environment(), CONFIG) as api:
        drive = Drive(api, own_store)
        api.mkdir(drive.s3)
        send(drive, "f", 1, b"x" * 9 * CHUNK)
        assert drive.uploads()
        wait_for(lambda: not drive.uploads(), "abort of the upload")
        assert drive.api.refusal("PUT", f"{drive.s3}/f", json=chunk(-1, b"x"))[0] == 400
        assert not list((tmp_path / "j" / "data").rglob("uploads/*.json"))


def test_uploads_of_a_killed_server_are_aborted_by_the_next(
    tmp_path: Path, own_store: servers.Store
) -> None:
    with servers.jupyter(tmp_path / "j", own_store.environment()) as api:
        drive = Drive(api, own_store)
        api.mkdir(drive.s3)
        send(drive, "f", 1, b"x" * 9 * CHUNK)
        api.stop(9)
    assert drive.uploads()
    (note,) = (tmp_path / "j" / "data").rglob("uploads/*.json")
    os.utime(note, (time.time() - 5, time.time() - 5))
    with servers.jupyter(tmp_path / "j", own_store.environment(), CONFIG) as api:
        api.names("s3")
        wait_for(lambda: not drive.uploads(), "abort of the upload")
        wait_for(lambda: not note.exists(), "removal of its note")
