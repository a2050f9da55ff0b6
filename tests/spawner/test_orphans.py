"""Which pods are orphans: real pods on an API server, users of a real hub's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.user import UserDict
from kubernetes_asyncio.client import CoreV1Api

from gpucloud_spawner.spawner.orphans import OrphanSweeper, hub_identity

SETTINGS: dict[str, Any] = {"cookie_secret": b"of this hub"}
LATER = datetime.now(UTC) + timedelta(hours=1)


class Hub:
    """A database with users, the pods in a reflector, and a sweeper over them."""

    def __init__(self, api: CoreV1Api) -> None:
        self.api = api
        self.db = orm.new_session_factory("sqlite:///:memory:")()
        self.users = UserDict(lambda: self.db, SETTINGS)
        self.pods: dict[str, Any] = {}
        log = SimpleNamespace(warning=print, error=print, exception=print)
        user = SimpleNamespace(settings={**SETTINGS, "users": self.users})
        reflectors = {("pods", "default"): SimpleNamespace(pods=self.pods)}
        spawner_class = type("Spawner", (), {"reflectors": reflectors})
        spawner = spawner_class()
        spawner.api, spawner.log, spawner.user, spawner.orphan_age = api, log, user, 60
        self.sweeper = OrphanSweeper(spawner)

    def add_user(self, name: str, pod: str = "") -> None:
        """A user; with ``pod``, one whose server runs in the pod of that name."""
        user = orm.User(name=name)
        self.db.add(user)
        if pod:
            state = {"namespace": "default", "pod_name": pod}
            server = orm.Server(base_url=f"/user/{name}/")
            user._orm_spawners.append(orm.Spawner(name="", state=state, server=server))
        self.db.commit()

    async def add_pod(self, name: str, user: str, hub: str = hub_identity(SETTINGS)) -> None:
        notes = {"gpucloud.io/hub": hub, "gpucloud.io/user": user, "gpucloud.io/app": ""}
        container = {"name": "c", "image": "busybox"}
        body = {
            "metadata": {"name": name, "annotations": notes},
            "spec": {"containers": [container]},
        }
        made = await self.api.create_namespaced_pod("default", body)
        self.pods[f"default/{name}"] = self.api.api_client.sanitize_for_serialization(made)

    async def left(self) -> list[str]:
        listed = await self.api.list_namespaced_pod("default")
        return [pod.metadata.name for pod in listed.items]


@pytest.fixture
async def hub(api: CoreV1Api) -> AsyncIterator[Hub]:
    made = Hub(api)
    yield made
    assert made.sweeper._task is not None
    made.sweeper._task.cancel()
    made.db.close()
    made.db.get_bind().dispose()


async def test_a_pod_without_a_server_is_deleted(hub: Hub) -> None:
    hub.add_user("ada")
    await hub.add_pod("orphan", "ada")
    await hub.sweeper.sweep(LATER)
    assert await hub.left() == []


async def test_a_young_pod_is_left_alone(hub: Hub) -> None:
    hub.add_user("ada")
    await hub.add_pod("young", "ada")
    await hub.sweeper.sweep(datetime.now(UTC))
    assert await hub.left() == ["young"]


async def test_the_pod_of_a_running_server_stays_also_after_its_owner_was_renamed(
    hub: Hub,
) -> None:
    hub.add_user("ada-king", pod="lab")
    await hub.add_pod("lab", "ada")
    hub.add_user("ada")  # and somebody else took the old name
    await hub.sweeper.sweep(LATER)
    assert await hub.left() == ["lab"]


async def test_pods_of_another_hub_in_the_namespace_are_left_alone(hub: Hub) -> None:
    hub.add_user("ada")
    await hub.add_pod("production", "ada", hub=hub_identity({"cookie_secret": b"another"}))
    await hub.add_pod("unmarked", "ada", hub="")
    await hub.sweeper.sweep(LATER)
    assert sorted(await hub.left()) == ["production", "unmarked"]


async def test_pods_of_users_that_the_hub_does_not_know_are_left_alone(hub: Hub) -> None:
    await hub.add_pod("before-the-new-database", "ada")
    await hub.sweeper.sweep(LATER)
    assert await hub.left() == ["before-the-new-database"]


async def test_a_new_pod_of_the_same_name_is_not_the_orphan(hub: Hub) -> None:
    hub.add_user("ada")
    await hub.add_pod("again", "ada")
    await hub.api.delete_namespaced_pod("again", "default", grace_period_seconds=0)
    stale = dict(hub.pods)
    await hub.add_pod("again", "ada")
    hub.pods.update(stale)  # the reflector has not seen the change yet
    await hub.sweeper.sweep(LATER)
    assert await hub.left() == ["again"]


def test_a_hub_without_a_secret_sweeps_nothing() -> None:
    assert hub_identity({}) == ""
