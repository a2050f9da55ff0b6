"""What Kubernetes answers becomes words, and never a failure of the hub."""

import json

import aiohttp
import pytest
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client import ApiException

from gpucloud_spawner.spawner.errors import StartRefused, in_words


def api_error(status: int, message: str) -> ApiException:
    error = ApiException(status=status, reason="R")
    error.body = json.dumps({"message": message})
    return error


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (api_error(403, "pods is forbidden: exceeded quota: gpus"), 403, "exceeded quota: gpus"),
        (api_error(422, "Pod is invalid: spec"), 500, "Pod is invalid: spec"),
        (ApiException(status=500, reason="Oops"), 500, "500 Oops"),
        (TimeoutError(), 503, "does not answer"),
        (aiohttp.ServerDisconnectedError(), 503, "does not answer"),
        (StartRefused("as it is", reason="x", status_code=409), 409, "as it is"),
    ],
)
def test_an_answer_of_the_cluster_is_told_in_words(
    raised: Exception, status: int, said: str
) -> None:
    with pytest.raises(StartRefused) as refused, in_words():
        raise raised
    assert isinstance(refused.value, SpawnException)  # what the hub does not count
    assert refused.value.status_code == status
    assert said in refused.value.jupyterhub_message


def test_the_last_lines_of_a_server_are_escaped_on_a_page() -> None:
    refused = StartRefused("It <ended>", reason="x", log="<script>alert(1)</script>")
    assert refused.jupyterhub_html_message is not None
    assert "<script>" not in refused.jupyterhub_html_message
    assert "<ended>" not in refused.jupyterhub_html_message
    assert "<script>alert(1)</script>" in refused.jupyterhub_message  # plain text
