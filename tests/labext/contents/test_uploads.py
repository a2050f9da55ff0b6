"""Files that the browser sends in chunks."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.web import HTTPError

from gpucloud_labext.contents import S3ContentsManager

from .servers import Drive

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


Make = Callable[..., S3ContentsManager]


async def begin(manager: S3ContentsManager, own: Drive) -> None:
    await manager.save(chunk(1, b"x" * 9 * CHUNK), f"{own.name}/f")
    assert own.uploads() == [f"{own.name}/f"]


async def until_aborted(own: Drive, data: Path) -> None:
    async with asyncio.timeout(30):
        while own.uploads() or list(data.rglob("*.json")):
            await asyncio.sleep(0.05)


async def test_uploads_that_stand_still_are_aborted(
    own: Drive, alone: Make, tmp_path: Path
) -> None:
    manager = alone(upload_idle_seconds=0.3)
    await begin(manager, own)
    await until_aborted(own, tmp_path)
    with pytest.raises(HTTPError) as refused:
        await manager.save(chunk(-1, b"x"), f"{own.name}/f")
    assert refused.value.status_code == 400
    await manager.uploads.close()


async def test_uploads_of_a_dead_server_are_aborted_by_the_next(
    own: Drive, alone: Make, tmp_path: Path
) -> None:
    await begin(alone(), own)  # and never comes back to it
    (note,) = tmp_path.rglob("uploads/*.json")
    os.utime(note, (time.time() - 5, time.time() - 5))
    manager = alone(upload_idle_seconds=1)
    await manager.get(own.name)
    await until_aborted(own, tmp_path)
    await manager.uploads.close()
