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


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Store]:
    with servers.running(servers.rclone_store(tmp_path_factory.mktemp("s3-rclone"))) as store:
        yield store


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Store]:
    missing = [name for name in servers.CEPH if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no real Ceph here: {', '.join(missing)} not installed")
    with servers.running_ceph(tmp_path_factory.mktemp("s3-ceph")) as store:
        yield store


# by name, not as a parameter of a session's fixture: pytest would end the one to start the other
@pytest.fixture(params=["rclone", pytest.param("ceph", marks=pytest.mark.ceph)])
def store(request: pytest.FixtureRequest) -> servers.Store:
    found: servers.Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def jupyters(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[servers.Store], servers.Jupyter]]:
    """The Jupyter server of a store, started when it is first asked for."""
    started: dict[str, servers.Jupyter] = {}
    with contextlib.ExitStack() as stack:

        def jupyter_of(store: servers.Store) -> servers.Jupyter:
            if store.kind not in started:
                folder = tmp_path_factory.mktemp(f"jupyter-{store.kind}")
                server = servers.jupyter(folder, store.environment())
                started[store.kind] = stack.enter_context(server)
            return started[store.kind]

        yield jupyter_of


@pytest.fixture
def api(
    store: servers.Store, jupyters: Callable[[servers.Store], servers.Jupyter]
) -> servers.Jupyter:
    return jupyters(store)


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
