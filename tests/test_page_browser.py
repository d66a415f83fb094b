"""The web page in headless Chromium: it stays fresh, breaks no policy, and can be used by keyboard and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import browser
import pytest
from browser import Browser, Tab
from hand_made_service import Served
from sqlalchemy import update
from test_page import EVIL, failed, running

from binworks.service.database import units
from binworks.service.model import JobState, UnitState

pytest_plugins = ["served_fixture"]
pytestmark = pytest.mark.skipif(browser.executable() is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser.browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@contextmanager
def signed_in(chromium: Browser, served: Served, user: str = "alice", **asked: Any) -> Iterator[Tab]:
    """Sign in by keyboard, as people do; afterwards nothing may have been complained of."""
    with chromium.tab(**asked) as tab:
        tab.goto(f"{served.url}/")
        sign_in(tab, served.made.tokens[user])
        yield tab
        assert tab.complaints == []


def sign_in(tab: Tab, token: str) -> None:
    """Write the token where the focus is, and go on."""
    tab.until("document.activeElement.id === 'token'")
    tab.write(token)
    tab.press("Enter")
    tab.loaded()


def progress(served: Served, job: str, rate: float) -> None:
    """Do what the driver does when a unit is done: settle it, and tell."""
    with served.made.database.write() as connection:
        lost = (units.c.job == job, units.c.state != UnitState.DONE)
        connection.execute(update(units).where(*lost).values(state=UnitState.DONE, entries=10, sum_sign=10))
    counts = {"units": {}, "events": {"done": 100, "total": 100}}
    served.made.tell(job, "progress", {"counts": counts, "rate": rate, "eta_s": 0.0})


@pytest.fixture
def job(served: Served) -> str:
    """Return a job that runs, with a unit of ten that is done."""
    job = running(served)
    served.made.lack(job, files=0, state=UnitState.RUNNING)
    return job


def test_signing_in_leads_to_the_page_that_was_asked_for(chromium: Browser, served: Served) -> None:
    with chromium.tab() as tab:
        tab.goto(f"{served.url}/jobs/{served.job}")
        assert tab.js("location.pathname") == "/login"
        sign_in(tab, served.made.tokens["alice"])
        assert tab.js("location.pathname") == f"/jobs/{served.job}"
        assert tab.js("document.cookie") == "", "a script could read the session"
        tab.click(".bar form button")
        tab.loaded()
        assert tab.js("location.pathname") == "/login"
        assert tab.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_no_page_breaks_the_policy_or_complains(
    chromium: Browser, served: Served, job: str, dark: bool
) -> None:
    lost = failed(served.made, label=f"label {EVIL}")
    with signed_in(chromium, served, dark=dark) as tab:
        for path in ("/", "/?state=failed", f"/jobs/{served.job}", f"/jobs/{lost}", f"/jobs/{job}"):
            tab.goto(served.url + path)
            tab.js("new Promise(done => setTimeout(done, 300))")
        tab.goto(f"{served.url}/jobs/{served.job}/nuisances")
        assert tab.js("getComputedStyle(document.body).backgroundColor") == (
            "rgb(13, 17, 23)" if dark else "rgb(245, 246, 248)"
        )


def test_the_policy_is_in_force(chromium: Browser, served: Served) -> None:
    with signed_in(chromium, served) as tab:
        tab.js(
            "window.ran = 0; const s = document.createElement('script'); s.text = 'ran = 1'; document.body.append(s)"
        )
        assert tab.js("ran") == 0
        assert (
            tab.js("(() => { try { return eval('1') } catch (error) { return error.name } })()")
            == "EvalError"
        )
        assert len(tab.complaints) >= 1
        tab.complaints.clear()


def test_the_page_follows_the_job(chromium: Browser, served: Served, job: str) -> None:
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/jobs/{job}")
        tab.until("document.getElementById('live').textContent === 'live'")
        tab.until("document.querySelector('#chart canvas')")
        assert "90.0 %" in tab.text("#status")
        progress(served, job, 7.5e6)
        tab.until("document.getElementById('status').innerText.includes('100.0 %')")
        served.made.publish(job, served.sums, complete=True)
        tab.until("document.querySelector('#picture figcaption').innerText.includes('Snapshot 2')")
        served.made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
        tab.until("document.getElementById('status').innerText.includes('succeeded')")
        assert (
            tab.js("document.querySelector('[role=status][aria-live]').innerText") == "The job is succeeded."
        )
        tab.until("document.getElementById('live').textContent === ''")
        tab.until("document.querySelector('#delete')")


def test_the_first_snapshot_appears_by_itself(chromium: Browser, served: Served) -> None:
    job = served.made.submit(datasets=list(served.sums))
    served.made.move(job, JobState.RUNNING)
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/jobs/{job}")
        tab.until("document.getElementById('live').textContent === 'live'")
        served.made.publish(job, served.sums, complete=False)
        tab.until("document.querySelector('#picture img')?.naturalWidth === 1120")


def test_the_list_follows_the_jobs(chromium: Browser, served: Served, job: str) -> None:
    with signed_in(chromium, served) as tab:
        tab.until("document.getElementById('live').textContent === 'live'")
        new = served.made.submit(label="brand new")
        tab.until(f"document.getElementById('job-{new}')")
        assert "brand new" in tab.text(f"#job-{new}")


def test_a_click_changes_the_picture_and_the_address(chromium: Browser, served: Served) -> None:
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/jobs/{served.job}")
        before = tab.js("document.querySelector('#picture img').currentSrc")
        tab.js(
            "const axis = document.getElementById('axis'); axis.value = 'eta';"
            "axis.dispatchEvent(new Event('change', {bubbles: true}))"
        )
        tab.until("location.search.includes('axis=eta')")
        assert tab.js("document.querySelector('#picture img').currentSrc") != before
        tab.js("document.getElementById('variation').focus()")
        tab.until("document.querySelectorAll('#names option').length === 167")


def test_the_picture_is_dark_in_the_dark(chromium: Browser, served: Served) -> None:
    with signed_in(chromium, served, dark=True) as tab:
        tab.goto(f"{served.url}/jobs/{served.job}")
        assert "shade=dark" in tab.js("document.querySelector('#picture img').currentSrc")
        tab.look_like(dark=False)
        tab.until("document.querySelector('#picture img').currentSrc.includes('shade=light')")


def test_a_job_is_retried_by_its_button(chromium: Browser, served: Served) -> None:
    job = failed(served.made)
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/jobs/{job}")
        tab.click("#retry")
        tab.loaded()
        assert served.made.jobs.get(job).state == JobState.QUEUED
        assert "queued" in tab.text("#status")


def test_what_becomes_of_a_file_for_a_fit_appears_by_itself(chromium: Browser, served: Served) -> None:
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/jobs/{served.job}")
        tab.js("document.getElementById('format').value = 'uhi-zip'")
        tab.click("#exports form button")
        tab.loaded()
        state = "document.querySelector('#exports-list .state').innerText"
        tab.until(f"['ready', 'failed'].includes({state})", seconds=120)
        tab.until("!document.getElementById('exports-list').hasAttribute('hx-trigger')")


def test_everything_can_be_done_by_keyboard(chromium: Browser, served: Served) -> None:
    job = served.made.submit(label="to be cancelled by keyboard")
    with signed_in(chromium, served) as tab:
        tab.goto(f"{served.url}/")
        tab.press("Tab")
        assert tab.focused() == "Skip to the content"
        tab.press("Enter")
        tab.tab_to(f"job-{job}")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert tab.js(outline) == "solid", "one cannot see where the focus is"
        tab.press("Enter")
        tab.loaded()
        tab.tab_to("cancel")
        tab.press("Enter")
        tab.tab_to("Yes, cancel the job")
        tab.press("Enter")
        tab.loaded()
        assert served.made.jobs.get(job).state == JobState.CANCELLING


@pytest.mark.parametrize("width", [1360, 400])
def test_without_a_script_one_can_do_the_same(
    chromium: Browser, served: Served, job: str, width: int
) -> None:
    with signed_in(chromium, served, script=False, width=width) as tab:
        tab.goto(f"{served.url}/jobs/{job}")
        assert tab.text("noscript a") == "Reload"
        assert tab.js("document.querySelector('#chart polyline').getBoundingClientRect().width") > 200
        tab.js("document.getElementById('axis').value = 'eta'")
        tab.click("#look button")
        tab.loaded()
        assert "axis=eta" in tab.js("location.search")
        drawn = tab.js("document.querySelector('#picture img').naturalWidth")
        assert drawn == (1120 if width > 560 else 780)
        served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
        tab.click("noscript a")
        tab.loaded()
        tab.click("#delete")
        tab.click(".confirm[open] .danger")
        tab.loaded()
        assert tab.js("location.pathname") == "/"
        assert job not in tab.text("#jobs")


def test_narrow_screens_need_no_scrolling_to_the_side(chromium: Browser, served: Served, job: str) -> None:
    with signed_in(chromium, served, width=380) as tab:
        for path in ("/", f"/jobs/{served.job}", f"/jobs/{failed(served.made)}", "/login"):
            tab.goto(served.url + path)
            assert tab.js("document.documentElement.scrollWidth") <= 380, path


def test_pages_left_behind_hold_no_line_to_the_service(chromium: Browser, served: Served, job: str) -> None:
    with signed_in(chromium, served) as tab:
        for _ in range(5):
            for path in ("/", f"/jobs/{job}"):
                tab.goto(served.url + path)
                tab.until("document.getElementById('live').textContent === 'live'")
        tab.js("history.back()")
        tab.until("location.pathname === '/' && document.getElementById('live')?.textContent === 'live'")
