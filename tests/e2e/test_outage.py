"""The Kubernetes API goes away while servers run, and comes back.

Run as on a real cluster: the hub knows the cluster only by the kubeconfig of KUBECONFIG
(GPUCLOUD_CLUSTER=kubeconfig), here with a forwarder between the two that can be cut.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from .cloud import Cloud, User, wait_for
from .forwarder import Forwarder

# long enough to be called blind; 90 and more show the same
OUTAGE_SECONDS = int(os.environ.get("GPUCLOUD_OUTAGE_SECONDS") or 45)
RIGHT_AGAIN_SECONDS = 15


class Remote(Cloud):
    """A hub whose cluster is elsewhere; `kube()` goes around the forwarder."""

    def __init__(self, data: Path, elsewhere: Cloud, kubeconfig: Path) -> None:
        super().__init__(
            data,
            GPUCLOUD_CLUSTER="kubeconfig",
            KUBECONFIG=str(kubeconfig),
            GPUCLOUD_NAMESPACE="remote",
            GPUCLOUD_HUB_CONNECT_IP="127.0.0.1",
        )
        self.kubeconfig = elsewhere.kubeconfig
        self.namespace = "remote"


@pytest.fixture
def forwarder(cloud: Cloud) -> Iterator[Forwarder]:
    config = yaml.safe_load(cloud.kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    made = Forwarder(server.hostname or "", server.port or 0)
    yield made
    made.close()


@pytest.fixture
def remote(cloud: Cloud, forwarder: Forwarder, tmp_path: Path) -> Iterator[Remote]:
    config = yaml.safe_load(cloud.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{forwarder.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    made = Remote(tmp_path / "remote", cloud, path)
    try:
        yield made.start()  # type: ignore[misc]
    finally:
        forwarder.join()
        made.stop()


@pytest.mark.timeout(400)
def test_servers_survive_an_outage_and_the_view_is_right_soon_after(
    remote: Remote, forwarder: Forwarder
) -> None:
    ada, bob, admin = remote.user("ada"), remote.user("bob"), remote.user("admin")
    ada.start("lab", profile="tensorflow", gpus="1")
    bob.start(profile="cpu")

    forwarder.cut()
    [dead] = remote.pods("bob")
    remote.kube(f"/api/v1/namespaces/remote/pods/{dead['metadata']['name']}", "DELETE")
    went = time.monotonic()
    while time.monotonic() - went < OUTAGE_SECONDS:
        assert ada.is_ready("lab"), "a running server is not given up for an outage"
        assert ada.lab("GET", "api/kernels", "lab").status_code == 200
        time.sleep(5)
    log = (remote.data / "logs" / "hub.log").read_text()
    assert "BLIND: the Kubernetes API has not answered" in log
    assert _blind_seconds(admin) > OUTAGE_SECONDS / 2

    forwarder.join()
    back = time.monotonic()
    wait_for(lambda: _blind_seconds(admin) == 0, "it sees again", timeout=RIGHT_AGAIN_SECONDS)
    # asking for the server makes the hub look: it knows that bob's is gone
    bob.api("POST", "/server", json={"user_options": {"profile": "cpu"}})
    wait_for(
        lambda: any(p["metadata"]["uid"] != dead["metadata"]["uid"] for p in remote.pods("bob")),
        "bob's server starts anew",
        timeout=RIGHT_AGAIN_SECONDS - (time.monotonic() - back),
    )
    wait_for(bob.is_ready, "bob is ready")
    ada.stop("lab")
    bob.stop()
    assert remote.pods() == []


def _blind_seconds(admin: User) -> float:
    headers = {"Authorization": f"token {admin.token}"}
    text = httpx.get(f"{admin.cloud.url}/hub/metrics", headers=headers, timeout=60).text
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("gpucloud_watch_blind_seconds{")
    ]
    assert values, "the metric is there"
    return max(values)
