"""One Jupyter server for the tests of a file, with a service to ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .lab import SERVICE_TOKEN, Lab, Service, running

# what the spawner sets in a pod of one simulated GPU
POD = {
    "GPUCLOUD_PROFILE": "tensorflow",
    "GPUCLOUD_TEAM": "vision",
    "GPUCLOUD_GPUS": "1",
    "GPUCLOUD_S3_BUCKET": "ada-bucket",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "HOSTNAME": "jupyter-ada",
    "JUPYTERHUB_USER": "ada",
    "JUPYTERHUB_SERVER_NAME": "train",
    "JUPYTERHUB_API_TOKEN": SERVICE_TOKEN,
    "JUPYTER_IMAGE": "gpucloud/notebook:0.1",
    "NVIDIA_VISIBLE_DEVICES": "1",
    "POD_IP": "127.0.3.4",
}


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="session")
def lab(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    environment = {**POD, "GPUCLOUD_API_URL": service.url}
    with running(tmp_path_factory.mktemp("lab"), environment, activity_interval=0.2) as lab:
        yield lab
