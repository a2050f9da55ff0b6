"""One gpucloud for most of the day; tests that kill it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cloud import Cloud, User


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("gpucloud"))
    try:
        yield cloud.start()
    finally:
        cloud.stop()


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Iterator[Cloud]:
    """The shared cloud; whatever a test left running is stopped, and nothing may be left of it."""
    yield shared_cloud
    admin = shared_cloud.user("admin")
    for person in admin.all_users():
        for server, model in person["servers"].items():
            if model["ready"] or model["pending"]:
                shared_cloud.user(person["name"]).stop(server)
    shared_cloud.close_browsers()
    assert shared_cloud.pods() == []


@pytest.fixture
def ada(cloud: Cloud) -> User:
    return cloud.user()


@pytest.fixture
def bob(cloud: Cloud) -> User:
    return cloud.user()
