"""The walk of the README in a real browser, and the waiting page.

With GPUCLOUD_SCREENSHOTS=folder every page is also kept there, to be looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from .cloud import Cloud, User, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 850})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def shoot(page: Page, name: str) -> None:
    folder = os.environ.get("GPUCLOUD_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def log_in(page: Page, cloud: Cloud, name: str) -> None:
    page.goto(f"{cloud.url}/hub/login")
    shoot(page, "1-login")
    page.get_by_label("Username").fill(name)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Server Options")).to_be_visible()


def test_from_the_login_to_jupyterlab(cloud: Cloud, ada: User, page: Page) -> None:
    log_in(page, cloud, ada.name)
    expect(page.get_by_role("radio", name="TensorFlow on GPU")).to_be_checked()
    page.locator("#profile-option-tensorflow--gpus").select_option("2")
    shoot(page, "2-spawn-form")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.locator("#progress-message")).not_to_be_empty()
    shoot(page, "3-starting")
    expect(page.locator(".jp-Launcher")).to_be_visible()
    shoot(page, "5-lab")
    [pod] = cloud.pods(ada.name)
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_a_refused_choice_is_told_on_the_form(cloud: Cloud, ada: User, page: Page) -> None:
    log_in(page, cloud, ada.name)
    page.goto(f"{cloud.url}/hub/spawn/{ada.name}?opt-profile=tensorflow&opt-gpus=64")
    message = page.locator(".spawn-error-msg")
    expect(message).to_contain_text("gpus '64' is not offered by profile tensorflow")
    shoot(page, "6-refused")


def test_waiting_for_a_gpu_is_told_and_can_be_cancelled(
    cloud: Cloud, ada: User, page: Page
) -> None:
    for holder in (cloud.user(), cloud.user()):
        holder.start(profile="tensorflow", gpus="2")
    log_in(page, cloud, ada.name)
    page.get_by_role("button", name="Start").click()
    words = page.locator("#progress-message")
    expect(words).to_contain_text("Waiting for a free GPU: 4 of 4 are in use")
    expect(words).to_contain_text("your request is number 1 in the queue")
    shoot(page, "4-waiting")
    page.get_by_role("button", name="Cancel this start").click()
    page.wait_for_url(f"{cloud.url}/hub/home")
    wait_for(lambda: cloud.pods(ada.name) == [], "nothing is left of it")
    shoot(page, "7-home")


def test_the_cancel_button_of_a_named_server_cancels_that_one(
    cloud: Cloud, ada: User, page: Page
) -> None:
    for holder in (cloud.user(), cloud.user()):
        holder.start(profile="tensorflow", gpus="2")
    log_in(page, cloud, ada.name)
    ada.start("other", profile="cpu")
    page.goto(f"{cloud.url}/hub/spawn/{ada.name}/lab")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="lab is starting")).to_be_visible()
    page.get_by_role("button", name="Cancel this start").click()
    page.wait_for_url(f"{cloud.url}/hub/home")
    wait_for(lambda: ada.is_stopped("lab"), "it is cancelled")
    assert ada.is_ready("other")


def test_a_crash_shows_the_last_lines_of_the_server(cloud: Cloud, ada: User, page: Page) -> None:
    log_in(page, cloud, ada.name)
    ada.request_start("lab", profile="crash")
    page.goto(f"{cloud.url}/hub/spawn-pending/{ada.name}/lab")
    expect(page.locator("body")).to_contain_text("boom: no licence found")
    shoot(page, "8-crash")
