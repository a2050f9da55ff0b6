"""The page in a browser session: the hub's login, what it shows to whom, and no way around _xsrf.

With GPUCLOUD_SCREENSHOTS=folder pictures are kept, light and dark.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.cloud import User
from tests.e2e.test_browser import CHROMIUM, FLAGS

from .conftest import Site

PAGE = "/services/gpucloud/"


def logged_in(site: Site, name: str) -> User:
    """A browser that has been to the service."""
    person = site.user(name)
    answer = person.browser.get(PAGE)
    assert answer.status_code == 200, answer.text
    return person


def service_xsrf(person: User) -> str:
    [cookie] = [
        c for c in person.browser.cookies.jar if c.name == "_xsrf" and c.path.startswith(PAGE)
    ]
    return cookie.value or ""


def test_a_user_sees_the_own_month_and_nobody_else(site: Site) -> None:
    text = logged_in(site, "ada").browser.get(f"{PAGE}?month=2025-10").text
    assert "My usage in 2025-10" in text
    assert "4.00" in text  # hours
    assert "8.00 CHF" in text
    assert "<title>2025-10-07: 2.00 GPU-hours</title>" in text
    assert "bob" not in text
    assert "By user" not in text


def test_the_budget_is_told(site: Site) -> None:
    text = logged_in(site, "ada").browser.get(PAGE).text
    assert "Your budget is 100 GPU-hours per month" in text
    assert 'class="near"' in text


def test_what_people_wrote_is_escaped(site: Site) -> None:
    text = logged_in(site, "bob").browser.get(f"{PAGE}?month=2025-10").text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text.replace("</script>", "").replace("<script src=", "")


def test_a_team_administrator_sees_the_team_and_an_administrator_all(site: Site) -> None:
    team = logged_in(site, "vera").browser.get(f"{PAGE}?month=2025-10").text
    assert "Team vision in 2025-10" in team
    assert ">ada</td>" in team
    assert "bob" not in team
    assert "Used and idle" not in team
    everybody = logged_in(site, "admin").browser.get(f"{PAGE}?month=2025-10").text
    assert "Everybody in 2025-10" in everybody
    assert ">bob</td>" in everybody
    assert "Used and idle" in everybody


def test_headers_keep_others_out(site: Site) -> None:
    browser = logged_in(site, "ada").browser
    for path in (PAGE, f"{PAGE}api/usage", f"{PAGE}nothing", f"{PAGE}static/portal.css"):
        headers = browser.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_a_page_that_is_wrong_says_so_without_markup(site: Site) -> None:
    answer = logged_in(site, "ada").browser.get(f"{PAGE}?month=<script>")
    assert answer.status_code == 400
    assert "&lt;script&gt;" in answer.text
    assert "<script>" not in answer.text


def test_a_cookie_alone_changes_nothing(site: Site) -> None:
    admin = logged_in(site, "admin")
    body = {"price": "1", "profile": "none", "reason": "by a browser"}
    before = site.ask("admin", "api/prices").json()
    for headers in (
        {},
        {"X-XSRFToken": "wrong"},
        {"X-XSRFToken": admin.xsrf},  # the hub's is not ours
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"},
    ):
        answer = admin.browser.post(f"{PAGE}api/prices", json=body, headers=headers)
        assert answer.status_code in (401, 403), headers
    assert site.ask("admin", "api/prices").json() == before
    headers = {"X-XSRFToken": service_xsrf(admin)}
    assert admin.browser.post(f"{PAGE}api/prices", json=body, headers=headers).status_code == 201


def test_another_site_cannot_read_with_the_cookie(site: Site) -> None:
    browser = logged_in(site, "ada").browser
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}
    assert browser.get(f"{PAGE}api/usage", headers=headers).status_code == 401


def test_the_login_leads_back_only_to_the_service(site: Site) -> None:
    person = site.cloud.user("ada")
    answer = person.browser.get(f"{PAGE}oauth_callback?next=//evil.example&code=x&state=y")
    assert answer.status_code in (400, 403)
    answer = person.browser.get("/services/gpucloud//evil.example/")
    assert answer.status_code == 404


@pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on the PATH")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(site: Site, scheme: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    folder = os.environ.get("GPUCLOUD_SCREENSHOTS")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1100, "height": 1500},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        errors: list[str] = []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(f"{site.cloud.url}/hub/login?next=%2Fservices%2Fgpucloud%2F%3Fmonth%3D2025-10")
        page.get_by_label("Username").fill("admin")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Everybody in 2025-10")).to_be_visible()
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        if folder:
            page.screenshot(path=str(Path(folder) / f"usage-admin-{scheme}.png"), full_page=True)
        page.context.clear_cookies()
        page.goto(f"{site.cloud.url}/hub/login?next=%2Fservices%2Fgpucloud%2F")
        page.get_by_label("Username").fill("ada")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="My usage in")).to_be_visible()
        budget = page.locator("div", has_text="Your budget is 100 GPU-hours per month")
        expect(budget.last).to_be_visible()
        expect(page.locator("svg.chart")).to_be_visible()
        if folder:
            page.screenshot(path=str(Path(folder) / f"usage-ada-{scheme}.png"), full_page=True)
        browser.close()
    assert errors == []  # nothing that the content security policy had to stop
