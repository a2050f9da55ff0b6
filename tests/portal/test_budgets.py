"""A start asks the service with the server's own token; what happens when it does not answer."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e.cloud import wait_for

from .conftest import Site


def unanswered(site: Site, decision: str) -> float:
    """The hub's counter."""
    headers = {"Authorization": f"token {site.tokens['admin']}"}
    text = httpx.get(f"{site.cloud.url}/hub/metrics", headers=headers, timeout=60).text
    found = re.search(rf'gpucloud_budget_unanswered_total\{{decision="{decision}"\}} (\S+)', text)
    return float(found.group(1)) if found else 0.0


def test_near_the_limit_the_owner_is_told_while_the_server_starts(site: Site) -> None:
    ada = site.user("ada")
    assert site.ask("ada", "api/budgets/check?gpus=1").json()["decision"] == "notice"
    with ThreadPoolExecutor() as pool:
        started = pool.submit(ada.request_start, "near", profile="tensorflow", gpus="1")
        wait_for(lambda: ada.model("near").get("pending"), "it starts", every=0.02)
        said = [event["message"] for event in ada.progress("near")]
    assert started.result().status_code in (201, 202)
    ada.stop("near")
    assert any("Your budget is 100 GPU-hours per month" in words for words in said)


def test_near_the_limit_the_form_says_so(site: Site) -> None:
    words = "Your budget is 100 GPU-hours per month"
    form = site.user("ada").browser.get("/hub/spawn/ada/near")
    assert form.status_code == 200
    assert words in form.text
    assert words not in site.user("bob").browser.get("/hub/spawn/bob/near").text


def test_a_service_that_hangs_delays_a_start_by_two_seconds_and_is_counted(site: Site) -> None:
    ada, before = site.user("ada"), unanswered(site, "allow")
    strict = unanswered(site, "deny")
    site.service.pause()
    try:
        began = time.monotonic()
        assert "gpucloud-profiles" in ada.browser.get("/hub/spawn/ada/strict").text
        assert time.monotonic() - began < 20, "the form does not wait for budgets"
        began = time.monotonic()
        refused = ada.request_start("strict", profile="strict", gpus="1")
        assert time.monotonic() - began < 20
        assert refused.status_code == 503
        assert "cannot be looked up at the moment" in refused.json()["message"]
        # without GPUs nobody is asked; else the switch of most profiles allows
        with ThreadPoolExecutor() as pool:
            free = pool.submit(ada.request_start, "free", profile="strict", gpus="0")
            allowed = pool.submit(ada.request_start, "open", profile="tensorflow", gpus="1")
        assert free.result().status_code in (201, 202)
        assert allowed.result().status_code in (201, 202)
        for server in ("free", "open"):
            ada.stop(server)
    finally:
        site.service.resume()
    assert unanswered(site, "allow") == before + 1
    assert unanswered(site, "deny") == strict + 1


def test_the_service_ends_in_order_and_comes_back(site: Site) -> None:
    before = site.ask("admin", "api/usage?month=2025-10").json()["total"]
    assert site.service.stop() == 0
    assert site.ask("admin", "api/usage").status_code == 503  # the proxy's
    site.service.start()
    assert site.ask("admin", "api/usage?month=2025-10").json()["total"] == before
