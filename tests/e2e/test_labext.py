"""The lab extension behind the real hub and proxy: what it tells, to whom, and `%gpucloud`."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from gpucloud_labext.handlers.routes import ROUTES

from .cloud import Cloud, User, wait_for

ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
MAGICS = """
status = %gpucloud status
print(repr(status))
gpus = %gpucloud gpus
print(repr(gpus))
usage = %gpucloud usage --by app
print(repr(usage))
print(status.cost_so_far is not None, len(gpus.devices), [row["app"] for row in usage.rows])
"""


def address(cloud: Cloud, owner: User, path: str = "") -> str:
    return f"{cloud.url}/user/{owner.name}/train/gpucloud/{path}"


def test_a_server_tells_about_itself_and_nobody_else_is_told(
    cloud: Cloud, ada: User, bob: User
) -> None:
    ada.start("train", profile="tensorflow", gpus="1")
    environment = json.loads(ada.run_code(ENVIRONMENT, "train"))
    assert environment["GPUCLOUD_API_URL"] == f"{cloud.url}/services/gpucloud/"
    wait_for(lambda: _status(ada)["cost_so_far"] is not None, "the ledger has seen the server")
    status = _status(ada)
    assert (status["user"], status["application"]) == (ada.name, "train")
    assert (status["profile"], status["gpus"]) == ("tensorflow", 1)
    assert (status["price_per_gpu_hour"], status["currency"]) == ("1.50", "EUR")
    assert status["service"] == "ok"
    assert status["s3"]["bucket"] == environment["GPUCLOUD_S3_BUCKET"]
    [device] = ada.lab("GET", "gpucloud/api/gpus", "train").json()["devices"]
    assert device["simulated"], "nobody measured a GPU that is none"
    assert device["utilization_percent"] is None
    wait_for(lambda: _usage(ada), "the first second is counted")
    assert [row["app"] for row in _usage(ada)] == ["train"]
    _only_the_owner(cloud, ada, bob, environment["JUPYTERHUB_API_TOKEN"])
    said = ada.run_code(MAGICS, "train").splitlines()
    assert said[-1] == "True 1 ['train']"
    assert any(line.split()[:4] == ["application", "train", "of", ada.name] for line in said)
    assert "The GPUs of this cluster are simulated" in "\n".join(said)


def test_an_open_page_is_no_activity_that_the_hub_hears_of(ada: User) -> None:
    ada.start(profile="cpu")

    def last_activity() -> str:
        return str(ada.lab("GET", "api/status").json()["last_activity"])

    def activity() -> dict[str, Any]:
        found: dict[str, Any] = ada.lab("GET", "gpucloud/api/activity").json()
        return found

    before = last_activity()
    for path in ("api/kernels", "api/sessions", "api/contents/?content=1", "gpucloud/api/status"):
        assert ada.lab("GET", path).status_code == 200
    assert (last_activity(), activity()["person"]["present"]) == (before, False)
    model = {"type": "file", "format": "text", "content": "typed"}
    assert ada.lab("PUT", "api/contents/notes.txt", json=model).status_code == 201
    assert last_activity() > before
    assert activity()["person"]["present"]
    assert not activity()["busy"]


def _status(user: User) -> dict[str, object]:
    answer = user.lab("GET", "gpucloud/api/status", "train")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def _usage(user: User) -> list[dict[str, object]]:
    answer = user.lab("GET", "gpucloud/api/usage?group_by=app", "train")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, object]] = answer.json()["rows"]
    return rows


def _only_the_owner(cloud: Cloud, ada: User, bob: User, secret: str) -> None:
    """Every route with bob's token, without any, and with a person's cookie but no `_xsrf`."""
    page = ada.browser.get(f"/user/{ada.name}/train/lab")
    assert page.status_code == 200, page.text[:500]
    bob.browser.get(f"/user/{bob.name}/train/lab")  # a cookie of the hub, but not of this server
    for route in ROUTES:
        url = address(cloud, ada, re.sub(r"\{\w+(\.\.\.)?\}", "train-1", route.path))
        for verb in route.verbs:
            for headers in ({}, {"Authorization": f"token {bob.token}"}):
                answer = httpx.request(verb, url, headers=headers, timeout=60)
                assert answer.status_code in (302, 403), (verb, url, answer.text)
            answer = bob.browser.request(verb, url, follow_redirects=False)
            assert answer.status_code in (302, 403), (verb, url, answer.text)
            answer = ada.browser.request(verb, url, follow_redirects=False)
            if verb in ("GET", "HEAD"):
                assert answer.status_code != 403, (verb, url, answer.text)
                assert "oauth" not in answer.headers.get("location", ""), url
                assert secret not in answer.text
            else:
                assert answer.status_code == 403, (verb, url, answer.text)
                assert "_xsrf" in answer.text


def test_a_profile_without_gpus_says_so(ada: User) -> None:
    ada.start(profile="cpu")
    found = ada.lab("GET", "gpucloud/api/gpus").json()
    assert found == {"message": "No GPU in this profile", "devices": []}
    assert ada.run_code("g = %gpucloud gpus\nprint(g)") == "No GPU in this profile"
