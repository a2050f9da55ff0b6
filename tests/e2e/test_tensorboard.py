"""TensorBoard behind the real hub and proxy, in a real browser: every tab draws, nothing fails.

With GPUCLOUD_SCREENSHOTS=folder every tab is also kept there, to be looked at.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websocket
from playwright.sync_api import Page, Request, expect, sync_playwright

from ..labext.tensorboard import runs
from .cloud import Cloud, User

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PATIENCE = 60_000
# tab: what it draws
TABS = {
    "timeseries": "scalar-card line-chart canvas",
    "scalars": "tf-scalar-card vz-line-chart2 svg",
    "images": "tf-image-loader img",
    "graphs": "tf-graph-scene g.node",
    "distributions": "tf-distribution-loader svg path",
    "histograms": "tf-histogram-loader vz-histogram-timeseries path",
    "text": "tf-text-loader strong",
    "pr_curves": "tf-pr-curve-card svg",
    "hparams": "tf-hparams-main vaadin-grid",
}


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 800})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def upload(user: User, folder: Path, to: str, server: str) -> None:
    """Through the contents API, as the file browser does."""
    user.lab("PUT", f"api/contents/{to}", server, json={"type": "directory"})
    for path in sorted(folder.rglob("*")):
        target = f"api/contents/{to}/{path.relative_to(folder)}"
        if path.is_dir():
            model = {"type": "directory"}
        else:
            content = base64.b64encode(path.read_bytes()).decode()
            model = {"type": "file", "format": "base64", "content": content}
        answer = user.lab("PUT", target, server, json=model)
        assert answer.status_code in (200, 201), answer.text


def shoot(page: Page, name: str) -> None:
    folder = os.environ.get("GPUCLOUD_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"tensorboard-{name}.png"))


def log_in(page: Page, cloud: Cloud, user: User) -> None:
    page.goto(f"{cloud.url}/hub/login?next=%2Fhub%2Fhome")
    page.get_by_label("Username").fill(user.name)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{cloud.url}/hub/home")


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")
def test_every_tab_draws_and_others_see_nothing(
    cloud: Cloud, ada: User, bob: User, page: Page, tmp_path: Path
) -> None:
    ada.start("lab", profile="cpu")
    runs.everything(tmp_path / "runs")
    upload(ada, tmp_path / "runs", "runs", "lab")
    board = ada.lab("POST", "gpucloud/api/tensorboards", "lab", json={"logdir": "runs"})
    assert board.status_code == 201, board.text
    url = board.json()["url"]
    assert url.startswith(f"/user/{ada.name}/lab/gpucloud/tensorboard/")

    failed: list[str] = []

    def note(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by TensorBoard itself, as a tab is left
            failed.append(f"{request.failure} {request.url}")

    log_in(page, cloud, ada)
    page.on("response", lambda r: failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("requestfailed", note)
    page.goto(cloud.url + url)
    for tab, drawn in TABS.items():
        page.goto(f"{cloud.url}{url}#{tab}")
        expect(page.locator(drawn).first).to_be_visible(timeout=PATIENCE)
        shoot(page, tab)
    page.goto(f"{cloud.url}{url}#projector")
    # the tab frames a page of the plugin, which frames the projector
    projector = page.frame_locator("iframe").frame_locator("iframe")
    expect(projector.get_by_text("Points: 50").first).to_be_visible(timeout=PATIENCE)
    shoot(page, "projector")
    page.goto(f"{cloud.url}{url}#scalars")
    with page.expect_response(lambda answer: "scalars/scalars" in answer.url):
        page.locator("button.reload-button").click()
    page.wait_for_load_state("networkidle")
    assert failed == []
    others_see_nothing(cloud, url, bob)


def others_see_nothing(cloud: Cloud, url: str, other: User) -> None:
    """Neither a stranger nor another user, by any verb."""
    api = url.partition("gpucloud/tensorboard/")[0] + "gpucloud/api/tensorboards"
    for headers in ({}, {"Authorization": f"token {other.token}"}):
        for path in (url, url + "data/runs", api):
            for method in ("GET", "POST", "PUT", "DELETE"):
                answer = httpx.request(method, cloud.url + path, headers=headers, timeout=60)
                assert answer.status_code in (302, 403, 405), f"{method} {path} {answer.text}"
                assert "train" not in answer.text
    assert other.browser.get(url).status_code == 403  # with a cookie, after the hub's redirects
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(
            f"ws://127.0.0.1:{cloud.port}{url}", header={"Authorization": f"token {other.token}"}
        )
    assert refused.value.status_code == 403
