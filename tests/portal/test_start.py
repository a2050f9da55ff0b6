"""The service's own start, without a hub: what passes is waited for, mistakes end it in words."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from jupyterhub import orm
from traitlets.config import Config

from gpucloud_spawner.metering import db
from gpucloud_spawner.portal.__main__ import serve
from gpucloud_spawner.portal.app import Portal
from gpucloud_spawner.portal.settings import HubAccess, Settings, load_settings

HUB = HubAccess(api_url="http://127.0.0.1:9/hub/api", api_token="t")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    config = Config()
    config.JupyterHub.db_url = f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}"
    config.GPUCloudSpawner.namespace = "default"
    return replace(load_settings(config, {}), listen=("127.0.0.1", 0))


async def test_a_port_that_is_taken_is_waited_for(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        portal = Portal(replace(settings, listen=("127.0.0.1", port)), HUB)
        starting = asyncio.create_task(portal.start())
        async with asyncio.timeout(20):
            while f"Port {port} of 127.0.0.1 is taken" not in caplog.text:
                await asyncio.sleep(0.02)
        assert not starting.done()
    try:
        async with asyncio.timeout(20):
            await starting
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}{HUB.prefix}health")
        assert answer.status_code == 200
    finally:
        await portal.stop()


async def test_it_ends_also_while_it_waits_for_its_port(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        address = holder.getsockname()
        serving = asyncio.create_task(serve(Portal(replace(settings, listen=address), HUB)))
        async with asyncio.timeout(20):
            while "is taken" not in caplog.text:
                await asyncio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_database_that_makes_trouble_does_not_keep_it_from_serving(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no database at all until somebody mends it."""
    caplog.set_level(logging.WARNING)
    file = Path(settings.db_url.removeprefix("sqlite:///"))
    file.write_bytes(b"no database " * 1000)
    portal = Portal(settings, HUB)
    try:
        await portal.start()
        assert "The database does not answer yet" in caplog.text
        assert not portal.is_ready
        file.unlink()
        orm.new_session_factory(settings.db_url).kw["bind"].dispose()
        async with asyncio.timeout(20):
            while not portal.is_ready:
                await asyncio.sleep(0.05)
    finally:
        await portal.stop()


async def test_a_newer_ledger_is_refused(settings: Settings) -> None:
    orm.new_session_factory(settings.db_url).kw["bind"].dispose()
    engine = db.make_engine(settings.db_url)
    db.upgrade(engine)
    with db.writing(engine).begin() as connection:
        connection.exec_driver_sql("UPDATE gpucloud_alembic_version SET version_num = '9999'")
    engine.dispose()
    portal = Portal(settings, HUB)
    with pytest.raises(db.SchemaError, match="newer than this version"):
        await portal.start()
    await portal.stop()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("JUPYTERHUB_SERVICE_URL", "http://192.0.2.1:8003", "is no address to serve on"),
        ("GPUCLOUD_DB_URL", "nonsense://me:secret@somewhere/db", "db_url) cannot be used"),
        ("JUPYTERHUB_API_TOKEN", "", "JUPYTERHUB_API_TOKEN is not set"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, variable: str, value: str, words: str) -> None:
    config = tmp_path / "jupyterhub_config.py"
    config.write_text("c = get_config()\n")
    done = subprocess.run(
        [sys.executable, "-m", "gpucloud_spawner.portal", "--config", str(config)],
        env={"JUPYTERHUB_API_TOKEN": "t", "PATH": "", variable: value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    critical = [line for line in done.stderr.splitlines() if "[C " in line]
    assert len(critical) == 1 and words in critical[0]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
