"""The address at which pods reach the service, as the hub can know it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from jupyterhub.app import JupyterHub

from gpucloud_spawner.spawner.service import url_for_pods

PUBLIC = {"PROXY_PUBLIC_SERVICE_HOST": "10.0.0.7", "PROXY_PUBLIC_SERVICE_PORT": "80"}
WITH_TLS = {**PUBLIC, "PROXY_PUBLIC_SERVICE_PORT": "443", "PROXY_PUBLIC_SERVICE_PORT_HTTP": "80"}
BEHIND = {"PROXY_HTTP_SERVICE_HOST": "10.0.0.8", "PROXY_HTTP_SERVICE_PORT": "8000"}


def spawner(base: str = "/", connect_url: str | None = None) -> SimpleNamespace:
    """What of a spawner is looked at; the hub of it is at 10.1.2.3 for pods."""
    hub = SimpleNamespace(base_url=f"{base}hub/", url=f"http://10.1.2.3:8081{base}hub/")
    return SimpleNamespace(hub=hub, hub_connect_url=connect_url)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        (PUBLIC, "http://10.0.0.7:80"),
        (WITH_TLS, "http://10.0.0.7:80"),
        ({**WITH_TLS, **BEHIND}, "http://10.0.0.8:8000"),
    ],
)
def test_on_zero_to_jupyterhub_it_is_the_proxys_service(
    environment: dict[str, str], address: str
) -> None:
    assert url_for_pods(spawner(), environment) == f"{address}/services/gpucloud/"
    assert url_for_pods(spawner("/base/"), environment) == f"{address}/base/services/gpucloud/"


@pytest.mark.parametrize(
    ("bind_url", "address"),
    [
        ("http://127.0.0.1:8000", "http://10.1.2.3:8000"),
        ("http://:8000", "http://10.1.2.3:8000"),
        ("http://0.0.0.0:8000/", "http://10.1.2.3:8000"),
        ("http://[::]:8000", "http://10.1.2.3:8000"),
        ("http://10.9.9.9:8000", "http://10.9.9.9:8000"),
        ("http://hub.example.com", "http://hub.example.com"),
    ],
)
def test_elsewhere_it_is_the_public_address_as_others_see_it(bind_url: str, address: str) -> None:
    JupyterHub.clear_instance()
    JupyterHub.instance(bind_url=bind_url)
    try:
        assert url_for_pods(spawner(), {}) == f"{address}/services/gpucloud/"
    finally:
        JupyterHub.clear_instance()


def test_nobody_knows_it_outside_of_a_hub() -> None:
    assert url_for_pods(spawner(), {}) == ""
