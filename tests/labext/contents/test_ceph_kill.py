"""A real RGW killed in the middle of an upload: nothing is half-written, and a retry works."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tornado.web import HTTPError

from gpucloud_labext.contents import S3ContentsManager

from . import servers

pytestmark = pytest.mark.ceph
CHUNK = base64.b64encode(bytes(6 * 2**20)).decode()


@pytest.fixture
def rgw(tmp_path: Path) -> Iterator[servers.Store]:
    missing = [name for name in servers.CEPH if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no real Ceph here: {', '.join(missing)} not installed")
    with servers.running_ceph(tmp_path) as store:
        yield store


def kill_gateway(store: servers.Store) -> None:
    """SIGKILL RGW; what supervises it ends the rest of Ceph and itself."""
    supervisor = store.process.child
    assert supervisor is not None
    [gateway] = [c for c in psutil.Process(supervisor.pid).children() if c.name() == "radosgw"]
    gateway.kill()
    assert supervisor.wait(60) == 1
    store.process.child = None


def manager_of(store: servers.Store, **traits: Any) -> S3ContentsManager:
    access, secret = store.keys
    return S3ContentsManager(
        bucket=servers.BUCKET,
        endpoint_url=store.endpoint,
        access_key_id=access,
        secret_access_key=secret,
        **traits,
    )


async def test_a_killed_gateway_leaves_nothing_half_written(
    rgw: servers.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    manager = manager_of(rgw)
    old = {"type": "file", "format": "text", "content": "old"}
    await manager.save(old, "model.h5")
    part = {"type": "file", "format": "base64", "content": CHUNK}
    await manager.save({**part, "chunk": 1}, "model.h5")
    await manager.save({**part, "chunk": 2}, "model.h5")
    await asyncio.to_thread(kill_gateway, rgw)
    for model in ({**part, "chunk": -1}, old):
        with pytest.raises(HTTPError) as error:
            await manager.save(model, "model.h5")
        assert error.value.status_code == 503
        assert "does not answer" in str(error.value.log_message)
    await asyncio.to_thread(rgw.start)
    assert (await manager.get("model.h5"))["content"] == "old"
    for chunk in (1, 2, -1):
        saved = await manager.save({**part, "chunk": chunk}, "model.h5")
    assert saved["size"] == 3 * 6 * 2**20
    client = rgw.client()
    assert client.head_object(Bucket=servers.BUCKET, Key="model.h5")["ContentLength"] == 18874368
    # what could not be aborted while RGW was away, a later server of this home ends
    later = manager_of(rgw, upload_idle_seconds=0.5)
    await later.get("")
    async with asyncio.timeout(20):
        while client.list_multipart_uploads(Bucket=servers.BUCKET).get("Uploads"):
            await asyncio.sleep(0.05)
    for one in (manager, later):
        await one.uploads.close()
