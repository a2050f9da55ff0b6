"""The panel in a real browser, in a real JupyterLab and Notebook, below a prefix as behind a hub.

What the server extension would answer is told by `frontend.fake_server`. With
GPUCLOUD_SCREENSHOTS=folder pictures are kept, to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright

from tests.ports import free_ports

from .contents.servers import Process, answers, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-component-update"]
TOKEN = "a-token"
PREFIX = "/user/ada/lab/"
FAKE = "tests.labext.frontend.fake_server"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")


class Lab:
    """JupyterLab and Notebook 7 as one server, with settings that make the tests quick."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        (self.home / "runs" / "first").mkdir(parents=True)
        (self.home / "s3" / "curves").mkdir(parents=True)
        (self.home / "train.py").write_text("print('training')\n")
        settings = folder / "settings"
        panel = settings / "gpucloud" / "panel.jupyterlab-settings"
        panel.parent.mkdir(parents=True)
        panel.write_text('{"pollSeconds": 1}')
        news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text('{"fetchNews": "false"}')
        config = folder / "config"
        config.mkdir()
        (config / "jupyter_server_config.json").write_text(json.dumps(self._config()))
        env = {
            **os.environ,
            "HOME": str(folder),
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        }
        port = free_ports()
        command = [sys.executable, "-m", "jupyter_server", f"--ServerApp.root_dir={self.home}"]
        command += [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.port_retries=0"]
        self.process = Process(command, folder / "jupyter.log", env)
        self.port = port
        self.url = f"http://127.0.0.1:{port}{PREFIX}"
        self.http = httpx.Client(headers={"Authorization": f"token {TOKEN}"}, timeout=30)

    @staticmethod
    def _config() -> dict[str, Any]:
        extensions = {"jupyterlab": True, "notebook": True, FAKE: True, "gpucloud_labext": False}
        return {
            "ServerApp": {
                "ip": "127.0.0.1",
                "base_url": PREFIX,
                "jpserver_extensions": extensions,
            },
            "IdentityProvider": {"token": TOKEN},
            # so that a test can run commands as a menu of another extension would
            "LabApp": {"expose_app_in_browser": True},
            "JupyterNotebookApp": {"expose_app_in_browser": True},
        }

    def page(self, path: str) -> str:
        return f"{self.url}{path}?token={TOKEN}"

    def tell(self, **state: Any) -> None:
        """Change what the fake answers."""
        self.http.post(f"{self.url}gpucloud/fake", json=state).raise_for_status()

    def requests(self) -> list[list[Any]]:
        found: list[list[Any]] = self.http.get(f"{self.url}gpucloud/fake").json()
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.process.start()
        wait_for(lambda: lab.process.running() and answers(lab.port), "Jupyter server")
        yield lab
    finally:
        lab.process.stop()
        lab.http.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        expect.set_options(timeout=30_000)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(30_000)
    yield page
    context.close()


def shoot(page: Page, name: str) -> None:
    folder = os.environ.get("GPUCLOUD_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"panel-{name}.png"))


# JupyterLab's keyboard shortcuts stumble over settings of another plugin that come before their own
# (seen in Notebook 7.6.5; the stack is all its own).
NOT_OURS = "Cannot read properties of undefined (reading 'schema')"


def watch(page: Page) -> list[str]:
    """What goes wrong in the page from now on."""
    trouble: list[str] = []

    def note(message: str) -> None:
        if message != NOT_OURS:
            trouble.append(message)

    page.on("pageerror", lambda error: note(error.message))
    page.on(
        "console",
        lambda message: (
            note(message.text) if message.type == "error" or "gpucloud" in message.text else None
        ),
    )
    return trouble


def open_lab(page: Page, lab: Lab) -> Locator:
    """The panel, opened from the status bar, in a workspace of its own: one that another test has
    used would bring its folder and tabs back, at any moment of this one."""
    page.goto(lab.page(f"lab/workspaces/{uuid.uuid4().hex}"))
    page.get_by_role("button", name="GPU 70.1 / 80 GiB").click()
    return page.get_by_role("region", name="GPU Cloud", exact=True)


def run_command(page: Page, command: str, **args: Any) -> None:
    page.evaluate(
        "([command, args]) => window.jupyterapp.commands.execute(command, args)", [command, args]
    )


def choose(page: Page, item: str, entry: str) -> None:
    """An entry of the context menu of something in the file browser."""
    page.locator(".jp-DirListing-item", has_text=item).click(button="right")
    page.get_by_role("menuitem", name=entry).click()


@contextmanager
def saved(page: Page, holds: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """Until JupyterLab has written down how the page looks, which it does a moment later; what was
    done before may be written down alone, so ``holds`` tells whether the data are what is meant."""

    def is_it(answer: Response) -> bool:
        request = answer.request
        if "/api/workspaces/" not in answer.url or request.method != "PUT":
            return False
        return holds(json.loads(request.post_data or "")["data"])

    with page.expect_response(is_it):
        yield


def has_tab(data: dict[str, Any], name: str) -> bool:
    return name in data and name in json.dumps(data.get("layout-restorer:data"))


def test_the_panel_shows_the_server_and_the_month(lab: Lab, page: Page) -> None:
    trouble = watch(page)
    panel = open_lab(page, lab)
    expect(page.locator(".jp-LauncherCard", has_text="Training job")).to_be_visible()
    server = panel.get_by_role("region", name="This server")
    expect(server).to_contain_text("12.20 EUR (1.20 EUR per GPU-hour)")
    expect(server).to_contain_text("5 h 5 min")
    gpu = server.get_by_role("group", name="GPU 0, NVIDIA A100-SXM4-40GB")
    expect(gpu.get_by_role("meter", name="Memory")).to_have_attribute("aria-valuenow", "78")
    # several looks make a line
    expect(gpu.get_by_role("img").locator("polyline")).to_be_attached()
    usage = panel.get_by_role("region", name="Usage")
    expect(usage.get_by_role("button", name="242.00 EUR")).to_be_visible()
    chart = usage.get_by_role("img", name="Usage by day, the highest 10.0 GPU-hours on")
    expect(chart).to_be_visible()
    for theme in ("Dark", "Light"):  # as it was in the end
        run_command(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
        is_light = str(theme == "Light").lower()
        expect(page.locator(f"body[data-jp-theme-light={is_light}]")).to_be_attached()
        page.locator("#gpucloud-panel").evaluate("panel => { panel.scrollTop = 0 }")
        shoot(page, f"1-{theme.lower()}")
        page.locator("#gpucloud-panel").evaluate(
            "panel => { panel.scrollTop = panel.scrollHeight }"
        )
        shoot(page, f"2-{theme.lower()}-below")
    assert trouble == []


def test_tensorboards_from_the_panel_and_from_folders(lab: Lab, page: Page) -> None:
    trouble = watch(page)
    panel = open_lab(page, lab)
    section = panel.get_by_role("region", name="TensorBoards")
    section.get_by_label("Log directory").fill("runs/first")
    section.get_by_label("Log directory").press("Enter")
    frame = page.frame_locator("iframe[title='TensorBoard of runs/first']")
    expect(frame.get_by_role("heading", name="TensorBoard tb0")).to_be_visible()
    listed = section.get_by_role("list", name="TensorBoards")
    expect(listed).to_contain_text("212 MiB")
    shoot(page, "3-tensorboard")
    section.get_by_role("button", name="Stop TensorBoard of runs/first").click()
    expect(page.get_by_role("button", name="Start it again")).to_be_visible()
    expect(section).to_contain_text("No TensorBoard is running.")

    page.get_by_role("tab", name="File Browser").click()
    choose(page, "runs", "Open in TensorBoard")
    expect(page.locator("iframe[title='TensorBoard of runs']")).to_be_visible()
    page.locator(".jp-DirListing-item", has_text="s3").dblclick()
    with saved(page, lambda data: has_tab(data, "gpucloud:s3://ada/curves")):
        choose(page, "curves", "Open in TensorBoard")
    expect(page.locator("iframe[title='TensorBoard of s3://ada/curves']")).to_be_visible()
    started = [body["logdir"] for verb, path, body in lab.requests() if path == "tensorboards"]
    assert started == ["runs/first", "runs", "s3://ada/curves"]
    # a tab is there again after a reload, and the panel as well
    page.reload()
    expect(page.locator("iframe[title='TensorBoard of s3://ada/curves']")).to_be_visible()
    assert trouble == []


def test_a_job_from_its_script_to_its_end(lab: Lab, page: Page) -> None:
    panel = open_lab(page, lab)
    jobs = panel.get_by_role("region", name="Jobs")
    expect(jobs).to_contain_text("worker 2/2 · ps 1/1 running")
    expect(jobs).to_contain_text("worker-1 ended with exit code 1. The script raised an error.")
    jobs.get_by_text("Its last lines").click()
    expect(jobs).to_contain_text("ValueError: <b>shape</b> (28, 28)")
    jobs.get_by_role("button", name="Logs of mnist-2").click()
    expect(page.get_by_role("log")).to_contain_text("[worker-0] step 199 loss")
    page.get_by_label("Replica").select_option("ps-0")
    expect(page.get_by_role("log")).to_contain_text("[ps-0] step 199")
    shoot(page, "4-logs")

    page.get_by_role("tab", name="File Browser").click()
    run_command(page, "filebrowser:open-path", path="/")
    choose(page, "train.py", "Run as a Job…")
    form = panel.get_by_role("form", name="New job")
    expect(form.get_by_label("Script")).to_have_value("train.py")
    expect(form.get_by_label("Script")).to_be_focused()
    form.get_by_label("Arguments").fill('--name "a b"')
    form.get_by_label("Workers").fill("2")
    form.get_by_label("GPUs per worker").fill("4")
    form.get_by_role("button", name="Launch").click()
    expect(form.get_by_role("alert")).to_contain_text("4 GPUs per worker are not offered")
    shoot(page, "5-form")
    form.get_by_label("GPUs per worker").fill("2")
    form.get_by_role("button", name="Launch").click()
    expect(form).to_be_hidden()
    expect(jobs).to_contain_text("Waiting for 2 GPUs.")
    launched = [body for verb, path, body in lab.requests() if (verb, path) == ("POST", "jobs")]
    wish = {"script": "train.py", "args": ["--name", "a b"], "workers": 2, "ps": 0, "gpus": 2}
    assert launched[-1] == wish
    jobs.get_by_role("button", name="Stop mnist-3").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(jobs.get_by_role("button", name="Stop mnist-3")).to_be_hidden()
    assert lab.requests()[-1][:2] == ["DELETE", "jobs/job-3"]


def test_trouble_is_one_line_and_the_keyboard_is_enough(lab: Lab, page: Page) -> None:
    panel = open_lab(page, lab)
    jobs, usage = (panel.get_by_role("region", name=name) for name in ("Jobs", "Usage"))
    expect(jobs).to_contain_text("mnist-2")
    message = "The gpucloud service cannot be reached."
    lab.tell(error={"status": 503, "code": "service_unavailable", "message": message})
    expect(jobs.get_by_role("alert")).to_contain_text(message)
    expect(jobs).to_contain_text("mnist-2")  # what is known stays
    usage.get_by_role("button", name="The month before").press("Enter")
    expect(usage.get_by_role("alert")).to_contain_text(message)
    shoot(page, "6-trouble")
    lab.tell(error=None)
    usage.get_by_role("button", name="Try again").press("Enter")
    expect(usage.get_by_role("img", name="Usage by day")).to_be_visible()

    lab.tell(error={"status": 503, "code": "no_service", "message": "There is no service to ask."})
    title = panel.get_by_role("button", name="This server")
    with saved(page, lambda data: data.get("gpucloud:closed-sections") == ["server"]):
        title.press("Enter")
    expect(title).to_have_attribute("aria-expanded", "false")
    page.reload()
    expect(title).to_have_attribute("aria-expanded", "false")
    expect(jobs).to_contain_text("There is no service to ask.")
    expect(jobs.get_by_role("alert")).to_be_hidden()
    shoot(page, "7-no-service")
    lab.tell(error=None)
    title.press("Enter")
    expect(panel.get_by_role("region", name="This server")).to_contain_text("tensorflow")


def test_notebook_7_has_the_panel_too(lab: Lab, page: Page) -> None:
    trouble = watch(page)
    page.goto(lab.page("tree"))
    expect(page.locator(".jp-DirListing-item", has_text="runs")).to_be_visible()
    with page.expect_popup() as popup:
        choose(page, "runs", "Open in TensorBoard")
    expect(popup.value.get_by_role("heading", name="TensorBoard tb")).to_be_visible()
    assert trouble == []
    (lab.home / "empty.ipynb").write_text(
        '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    )
    page.goto(lab.page("notebooks/empty.ipynb"))
    expect(page.locator(".jp-Notebook")).to_be_visible()
    run_command(page, "gpucloud:show-panel")
    panel = page.get_by_role("region", name="GPU Cloud", exact=True)
    expect(panel.get_by_role("meter", name="Memory").first).to_be_visible()
    shoot(page, "8-notebook")
    assert trouble == []
