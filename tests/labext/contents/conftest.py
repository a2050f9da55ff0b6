"""One S3 server of each kind and a Jupyter server on it for most tests; those that kill one start
their own."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_labext.contents import S3ContentsManager

from . import servers


@pytest.fixture(scope="session", params=["rclone", pytest.param("ceph", marks=pytest.mark.ceph)])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Store]:
    folder = tmp_path_factory.mktemp(f"s3-{request.param}")
    with contextlib.ExitStack() as stack:
        if request.param == "ceph":
            missing = [name for name in servers.CEPH if shutil.which(name) is None]
            if missing:
                pytest.skip(f"no real Ceph here: {', '.join(missing)} not installed")
            yield stack.enter_context(servers.running_ceph(folder))
        else:
            yield stack.enter_context(servers.running(servers.rclone_store(folder)))


@pytest.fixture(scope="session")
def api(
    store: servers.Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Jupyter]:
    folder = tmp_path_factory.mktemp(f"jupyter-{store.kind}")
    with servers.jupyter(folder, store.environment()) as server:
        yield server


@pytest.fixture
def drive(api: servers.Jupyter, store: servers.Store) -> Iterator[servers.Drive]:
    drive = servers.Drive(api, store)
    api.mkdir(drive.s3)
    drive.home.mkdir()
    yield drive
    with contextlib.suppress(AssertionError):
        api.delete(drive.s3)


@pytest.fixture(scope="session")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Store]:
    with servers.running(servers.rclone_store(tmp_path_factory.mktemp("own-s3"))) as store:
        yield store


@pytest.fixture(scope="session")
def own_api(
    own_store: servers.Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Jupyter]:
    folder = tmp_path_factory.mktemp("own-jupyter")
    file = folder / "credentials"
    servers.write_keys(file, *own_store.keys)
    environment = own_store.environment() | {
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_SECRET_ACCESS_KEY": "that of the start, dead since",
    }
    with servers.jupyter(folder, environment) as server:
        yield server


@pytest.fixture
def own(own_store: servers.Store, own_api: servers.Jupyter) -> Iterator[servers.Drive]:
    """Servers of which a test may kill the S3 one."""
    drive = servers.Drive(own_api, own_store)
    own_api.mkdir(drive.s3)
    drive.home.mkdir()
    yield drive
    if own_store.process.child is None:
        own_store.start()
    else:
        own_store.process.child.send_signal(signal.SIGCONT)


@pytest.fixture
def alone(
    own_store: servers.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., S3ContentsManager]:
    """Makes S3ContentsManagers in this very process, on the store that may be killed."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    access, secret = own_store.keys

    def make(**traits: Any) -> S3ContentsManager:
        given = {
            "bucket": servers.BUCKET,
            "endpoint_url": own_store.endpoint,
            "access_key_id": access,
            "secret_access_key": secret,
            **traits,
        }
        return S3ContentsManager(**given)

    return make
