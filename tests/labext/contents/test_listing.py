"""Big folders: one request per 1,000 entries, and others are served meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gpucloud_labext.contents import S3ContentsManager

from . import servers
from .servers import BUCKET, TOKEN, Drive

FILES, FOLDERS = 1500, 100
Make = Callable[..., S3ContentsManager]


@pytest.fixture(scope="module")
def many(own_store: servers.Store, own_api: servers.Jupyter) -> Drive:
    """A folder of another client's making; module-wide, for it takes seconds."""
    drive = Drive(own_api, own_store)
    client = own_store.client()

    def put(name: str) -> None:
        client.put_object(Bucket=BUCKET, Key=f"{drive.name}/many/{name}", Body=b"x")

    names = [f"{n:05}.txt" for n in range(FILES)] + [f"sub{n:03}/x.txt" for n in range(FOLDERS)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, names))
    return drive


async def test_one_request_per_thousand_entries(many: Drive, alone: Make) -> None:
    manager = alone()
    seen: list[str] = []
    events = manager.store.client.meta.events
    events.register("before-call.s3", lambda model, **_: seen.append(model.name))
    model = await manager.get(f"{many.name}/many", type="directory")
    assert len(model["content"]) == FILES + FOLDERS
    assert seen == ["ListObjectsV2"] * 2


def test_a_listing_pages_through(many: Drive) -> None:
    model = many.api.get(f"{many.s3}/many")
    kinds = [entry["type"] for entry in model["content"]]
    assert (kinds.count("file"), kinds.count("directory")) == (FILES, FOLDERS)
    assert len({entry["path"] for entry in model["content"]}) == FILES + FOLDERS
    assert model["path"] == f"{many.s3}/many"


def test_others_are_served_while_a_big_folder_is_listed(many: Drive) -> None:
    """Half of the requests take less than a quarter of a listing, however slow this machine is;
    bench/s3.py measures the 99th percentile on a quiet one."""
    stop = threading.Event()
    times: list[float] = []

    def ask() -> None:
        headers = {"Authorization": f"token {TOKEN}"}
        with httpx.Client(base_url=many.api.url, headers=headers) as http:
            while not stop.is_set():
                started = time.perf_counter()
                assert http.get("/api/kernels").status_code == 200
                times.append(time.perf_counter() - started)

    listed: list[Any] = []
    listings: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            for _ in range(3):
                started = time.perf_counter()
                listed.append(many.api.names(f"{many.s3}/many"))
                listings.append(time.perf_counter() - started)
        finally:
            stop.set()
        asking.result()
    assert [len(names) for names in listed] == [FILES + FOLDERS] * 3
    assert len(times) > 10
    assert sorted(times)[len(times) // 2] < min(listings) / 4


def test_a_big_folder_is_deleted_whole(many: Drive) -> None:
    many.api.delete(f"{many.s3}/many")
    assert many.found() == []
