"""One S3 server of each kind and a Jupyter server on it for most tests; those that kill one start
their own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[servers.Store]:
    with servers.running(servers.rclone_store(tmp_path)) as store:
        yield store


@pytest.fixture
def own(tmp_path: Path, own_store: servers.Store) -> Iterator[servers.Drive]:
    """Servers that the test may kill."""
    with servers.jupyter(tmp_path / "j", own_store.environment()) as api:
        drive = servers.Drive(api, own_store)
        api.mkdir(drive.s3)
        drive.home.mkdir()
        yield drive
