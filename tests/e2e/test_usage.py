"""From a spawn to the bill: the seconds that the pod's own status gives, whatever dies."""

from __future__ import annotations

import time

import psutil

from .bills import PodWatch, ask, billed
from .cloud import Cloud, User, wait_for


def service_process(cloud: Cloud) -> psutil.Process | None:
    """The service as the hub has started it."""
    assert cloud.process is not None
    for process in psutil.Process(cloud.process.pid).children(recursive=True):
        try:
            if "gpucloud_spawner.portal" in process.cmdline():
                return process
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return None


def run_for(user: User, seconds: float, **options: str) -> None:
    user.start("lab", **options)
    # how long it runs is what is measured here: nothing to wait for
    time.sleep(seconds)
    user.stop("lab")


def test_the_bill_is_what_the_pod_s_status_says(cloud: Cloud, bob: User) -> None:
    vera = cloud.user("vera")  # an administrator of her team
    watch = PodWatch(cloud)
    run_for(vera, 2, profile="tensorflow", gpus="2", team="vision")
    wait_for(lambda: len(watch.deleted) == 1, "the pod is gone")
    wait_for(lambda: billed(vera)[0] == watch.seconds_of("vera"), "the ledger has the end")
    assert watch.seconds_of("vera") >= 4
    rows = ask(vera, "api/usage?group_by=user,team,app,product&team=vision").json()["rows"]
    used = [row for row in rows if row["gpu_seconds"]]
    assert [(r["user"], r["team"], r["app"], r["product"]) for r in used] == [
        ("vera", "vision", "lab", "NVIDIA-FAKE-GPU")
    ]
    # nobody else sees it, but an administrator does
    for question in ("user=vera", "team=vision"):
        assert ask(bob, f"api/usage?{question}").status_code == 403
        assert ask(bob, f"api/usage/intervals?{question}").status_code == 403
    assert ask(vera, "api/usage?team=speech").status_code == 403
    assert billed(vera, cloud.user("admin")) == billed(vera)


def test_a_killed_service_bills_the_same(cloud: Cloud, ada: User) -> None:
    watch = PodWatch(cloud)
    ada.start("lab", profile="tensorflow", gpus="1")
    service = service_process(cloud)
    assert service is not None
    service.kill()
    # it ends while nobody looks; stopping does not wait for the service
    ada.stop("lab")
    wait_for(lambda: len(watch.deleted) == 1, "the pod is gone")
    wait_for(lambda: billed(ada) == (watch.seconds_of(ada.name), True), "the hub restarted it")
    assert watch.seconds_of(ada.name) > 0
    lines = ask(ada, "api/usage/intervals").json()["lines"]
    [line] = [line for line in lines if line["kind"] == "gpu"]
    assert line["running"] is False
    assert line["end_known_by"] in ("containers", "deletion")


def test_a_budget_that_is_used_up_refuses_gpus_and_names_itself(cloud: Cloud) -> None:
    admin = cloud.user("admin")
    answer = admin.request_start("lab", profile="tensorflow", gpus="1")
    assert answer.status_code == 403
    words = answer.json()["message"]
    assert "Your budget is 0 GPU-hours per month, 0 are used. It renews at " in words
    assert cloud.pods("admin") == []
    assert cloud.claims("admin") == []
    # on the form, and by a link
    form = {"profile": "tensorflow", "profile-option-tensorflow--gpus": "1"}
    admin.browser.get("/hub/spawn/admin")
    page = admin.browser.post("/hub/spawn/admin", params={"_xsrf": admin.xsrf}, data=form)
    assert page.status_code == 403
    assert "Your budget is 0 GPU-hours per month" in page.text
    page = admin.browser.get("/hub/spawn/admin?opt-profile=tensorflow&opt-gpus=1")
    assert "Your budget is 0 GPU-hours per month" in page.text
    # without GPUs it starts; its own token sees the owner's usage and rules nothing
    admin.start("lab", profile="tensorflow", gpus="0")
    code = (
        "import os, urllib.request, urllib.error\n"
        "def ask(path):\n"
        f"    url = 'http://127.0.0.1:{cloud.port}/services/gpucloud/' + path\n"
        "    token = os.environ['JUPYTERHUB_API_TOKEN']\n"
        "    request = urllib.request.Request(url, headers={'Authorization': 'token ' + token})\n"
        "    try:\n"
        "        return urllib.request.urlopen(request).status\n"
        "    except urllib.error.HTTPError as error:\n"
        "        return error.code\n"
        "print(ask('api/usage'), ask('api/usage?user=vera'), ask('api/adjustments'))\n"
    )
    assert admin.run_code(code, "lab") == "200 403 403"


def test_what_runs_is_never_ended_for_a_budget(cloud: Cloud) -> None:
    thrifty = cloud.user("thrifty")  # 7.2 GPU-seconds a month
    thrifty.start("lab", profile="tensorflow", gpus="1")
    wait_for(lambda: billed(thrifty)[0] > 8, "the budget is used up")
    answer = thrifty.request_start("more", profile="tensorflow", gpus="1")
    assert answer.status_code == 403
    assert "are used" in answer.json()["message"]
    assert thrifty.is_ready("lab")
    budget = ask(thrifty, "api/budgets").json()["budgets"][0]
    assert budget["fraction"] > 1
    assert budget["renews_at"].endswith("-01T00:00:00Z")
