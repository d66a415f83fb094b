"""The web page as a browser gets it that runs no script: every page is whole, readable and escaped."""

from __future__ import annotations

import hashlib
import html
import re
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hand_made_service import HandMade, Served, serving
from sqlalchemy import insert, update

from binworks.api import page_parts, page_templates, preview
from binworks.api.auth import User
from binworks.api.context import Context
from binworks.api.preview import Look
from binworks.service.database import jobs, units
from binworks.service.model import JobState, UnitState

EVIL = "<script>alert(1)</script>"
PROGRESS = {"counts": {"units": {}, "events": {"done": 5, "total": 10}}, "eta_s": 1.0}


@contextmanager
def visitor(served: Served, user: str | None = "alice") -> Iterator[httpx.Client]:
    """Browse as a user who has signed in with his token."""
    headers = {"Accept": "text/html", "Origin": served.url}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60) as site:
        if user:
            answer = site.post("/login", data={"token": served.made.tokens[user], "next": "/"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
        yield site


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("page") / "home") as mine:
        yield mine


@pytest.fixture(scope="module")
def site(served: Served) -> Iterator[httpx.Client]:
    with visitor(served) as browsing:
        yield browsing


@pytest.fixture(scope="module")
def scene(served: Served) -> dict[str, str]:
    """Return jobs of alice's by what they show."""
    made = served.made
    found = {"finished": served.job, "queued": made.submit(label="later")}
    found["incomplete"] = made.incomplete({"Wplusmunu": served.sums["Wplusmunu"]})
    found["running"] = running(served)
    found["failed"] = failed(made, label=f"label {EVIL}")
    return found


def running(served: Served) -> str:
    """Return a job that has a snapshot and goes on."""
    job = served.made.submit(datasets=list(served.sums), label="running")
    served.made.move(job, JobState.RUNNING)
    served.made.publish(job, served.sums, complete=False)
    for rate in (1e6, 2e6, 1.5e6):
        served.made.tell(job, "progress", {**PROGRESS, "rate": rate})
    return job


def failed(made: HandMade, **asked: Any) -> str:
    """Return a job that failed of a file whose name and error are not meant well."""
    job = made.submit(**asked)
    made.move(job, JobState.RUNNING)
    made.lack(job, state=UnitState.FAILED)
    error = {
        "code": "corrupt-file",
        "message": f"It said {EVIL}.",
        "where": f"{EVIL}.root",
        "hint": f"Ask {EVIL}.",
    }
    piece = {"path": f"{EVIL}.root", "uuid": "u", "size": 1, "start": 0, "stop": 10}
    with made.database.write() as connection:
        lost = (units.c.job == job, units.c.state == UnitState.FAILED)
        changed = {"error": error, "ranges": [piece], "traceback": f"Traceback: {EVIL}"}
        connection.execute(update(units).where(*lost).values(**changed))
        unreadable = [{"path": f"{EVIL}.root", "dataset": "Wplusmunu", "error": error}]
        connection.execute(update(jobs).where(jobs.c.id == job).values(unreadable=unreadable))
    made.move(job, JobState.FAILED, error=error)
    return job


class Reader(HTMLParser):
    """What is on a page: text, links, forms and their fields, and what may not be there."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.forms: list[tuple[str, str]] = []
        self.fields: set[str] = set()
        self.labels: set[str] = set()
        self.ids: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open.append(tag)
        self.ids += [given["id"]] if given.get("id") else []
        self.wrong += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.wrong += [f"{tag} {link}" for link in given.values() if (link or "").startswith("javascript:")]
        if tag == "script" and not (given.get("src") or given.get("type") == "application/json"):
            self.wrong.append("a script within the page")
        if tag == "img" and not given.get("alt"):
            self.wrong.append("a picture without words")
        if tag == "a":
            self.links.append(given["href"] or "")
        elif tag == "form":
            self.forms.append((given["method"] or "", given["action"] or ""))
        elif tag == "label":
            self.labels.add(given["for"] or "")
        elif tag in ("input", "select") and given.get("type") != "hidden":
            self.fields.add(given["id"] or "")

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["script"], ["style"]):
            self.text += data

    @property
    def faults(self) -> list[str]:
        """What a strict policy, or somebody who cannot see, would stumble over."""
        twice = {name for name in self.ids if self.ids.count(name) > 1}
        return [*self.wrong, *(f"id twice: {name}" for name in twice), *(self.fields - self.labels)]


def read(site: httpx.Client, path: str, status: int = 200) -> Reader:
    answer = site.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    found = Reader(answer.text)
    assert found.faults == []
    return found


def test_without_a_session_one_is_sent_to_sign_in_and_back(served: Served, scene: Mapping[str, str]) -> None:
    with visitor(served, None) as site:
        for path in ("/", f"/jobs/{served.job}", "/?state=failed"):
            answer = site.get(path)
            assert answer.status_code == 303
            form = site.get(answer.headers["location"]).text
            assert f'name="next" value="{path}"' in form
        assert Reader(form).faults == []
        wrong = site.post("/login", data={"token": "bw_wrong", "next": "/"})
        assert wrong.status_code == 401
        assert "not known here" in Reader(wrong.text).text
        assert site.get("/", headers={"Accept": "application/json"}).json()["code"] == "no-token"


def test_the_list_shows_each_job_with_what_one_needs_to_know(
    site: httpx.Client, scene: Mapping[str, str]
) -> None:
    shown = read(site, "/")
    assert {f"/jobs/{job}" for job in scene.values()} <= set(shown.links)
    for text in (
        "running",
        "queued",
        "succeeded",
        "1 unit failed",
        "90.0 %",
        "incomplete",
        "complete",
        "later",
    ):
        assert text in shown.text
    assert "bob" not in shown.text


def test_the_list_can_be_filtered_by_state(site: httpx.Client, scene: Mapping[str, str]) -> None:
    shown = read(site, "/?state=queued").links
    assert f"/jobs/{scene['queued']}" in shown
    assert f"/jobs/{scene['failed']}" not in shown
    assert "No job is cancelling." in read(site, "/?state=cancelling").text


def test_an_admin_sees_whose_jobs_they_are(served: Served, scene: Mapping[str, str]) -> None:
    theirs = served.made.submit("bob")
    with visitor(served, "admin") as site:
        shown = read(site, "/")
    assert f"/jobs/{theirs}" in shown.links
    assert {"Owner", "alice", "bob"} <= set(shown.text.split())


def test_a_long_list_comes_in_pages(served: Served) -> None:
    mine = [served.made.submit("bob") for _ in range(60)]
    with visitor(served, "bob") as site:
        first = read(site, "/")
        (older,) = (link for link in first.links if "cursor=" in link)
        second = read(site, older)
    both = [link for page in (first, second) for link in page.links if link.startswith("/jobs/")]
    assert len([link for link in first.links if link.startswith("/jobs/")]) == 50
    assert set(mine) <= {link.removeprefix("/jobs/") for link in both}
    assert "/" in second.links


@pytest.mark.parametrize(
    ("which", "said", "actions"),
    [
        ("queued", ["queued", "There is none yet", "It begins with the first units"], {"cancel"}),
        ("running", ["running", "snapshot 1", "INCOMPLETE: 40.0 % of the events"], {"cancel", "exports"}),
        (
            "failed",
            ["failed", "corrupt-file", "Unit 1 of Wplusmunu", "after 5 attempts"],
            {"retry", "delete"},
        ),
        ("incomplete", ["INCOMPLETE", "skipped after 5 attempts", "Gone."], {"retry", "delete", "exports"}),
        ("finished", ["succeeded", "complete", "Snapshot 1", "rabbit"], {"delete", "exports"}),
    ],
)
def test_a_page_shows_its_job_and_offers_what_can_be_done(
    site: httpx.Client, scene: Mapping[str, str], which: str, said: list[str], actions: set[str]
) -> None:
    job = scene[which]
    shown = read(site, f"/jobs/{job}")
    for text in said:
        assert text in shown.text
    forms = {action for method, action in shown.forms if method == "post"} - {"/logout"}
    assert forms == {f"/jobs/{job}/{action}" for action in actions}


def test_a_page_says_what_decides_the_numbers(served: Served, site: httpx.Client) -> None:
    shown = read(site, f"/jobs/{served.job}").text
    facts = site.get(f"/jobs/{served.job}").text
    stored = served.made.store.attributes(f"jobs/{served.job}/g/1/Wplusmunu")["digest"]
    assert stored in facts
    assert "3 files of 3 data sets" in shown
    assert re.search(r"title=\"[0-9a-f]{64}\"", facts)


def test_corrections_are_named_by_their_sha256(served: Served, site: httpx.Client) -> None:
    job = served.made.submit(corrections="small")
    facts = site.get(f"/jobs/{job}").text
    manifest = served.made.settings.home / "corrections" / "toy" / "manifest.json"
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() in facts
    for digest in re.findall(r"[0-9a-f]{64}", manifest.read_text()):
        assert digest in facts


def test_pieces_of_code_name_this_service_and_this_job_and_no_token(
    served: Served, site: httpx.Client
) -> None:
    shown = read(site, f"/jobs/{served.job}")
    assert f'Client("{served.url}")' in shown.text
    assert f"{served.url}/v1/jobs/{served.job}/zarr/1" in shown.text
    assert f"binworks pull {served.job}" in shown.text
    assert "bw_" not in shown.text
    lying = site.get(f"/jobs/{served.job}", headers={"Host": 'x";rm -rf'})
    assert "rm -rf" not in lying.text


def test_the_python_piece_runs(served: Served, site: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWORKS_TOKEN", served.made.tokens["alice"])
    text = site.get(f"/jobs/{served.job}").text
    pieces = re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", text, re.DOTALL)
    for piece in (html.unescape(found) for found in pieces):
        if "import" in piece:
            names: dict[str, Any] = {}
            exec(compile(piece, "a piece of the page", "exec"), names)
            if "client" in names:
                names["client"].close()


def test_what_users_write_is_text_and_never_markup(site: httpx.Client, scene: Mapping[str, str]) -> None:
    for path in ("/", f"/jobs/{scene['failed']}"):
        answer = site.get(path).text
        assert EVIL not in answer
        assert EVIL in Reader(answer).text
    shown = Reader(site.get(f"/jobs/{scene['failed']}").text).text
    for text in (f"label {EVIL}", f"It said {EVIL}.", f"{EVIL}.root", f"Ask {EVIL}.", f"Traceback: {EVIL}"):
        assert text in shown
    wrong = site.get(f"/jobs/{scene['finished']}", params={"variation": EVIL, "axis": EVIL})
    assert EVIL not in wrong.text
    assert EVIL not in site.get("/nothing", params={"x": EVIL}).text


def test_somebody_elses_job_looks_absent(served: Served, scene: Mapping[str, str]) -> None:
    with visitor(served, "bob") as site:
        for path in ("", "/preview.png", "/preview", "/nuisances", "/exports", "/live"):
            shown = read(site, f"/jobs/{served.job}{path}", 404)
            assert "unknown-job" in shown.text
        for action in ("cancel", "retry", "delete", "exports"):
            data = {"format": "rabbit"}
            assert site.post(f"/jobs/{served.job}/{action}", data=data).status_code == 404


def test_an_error_page_says_what_the_problem_document_says(served: Served, site: httpx.Client) -> None:
    for path in (
        "/jobs/nothere",
        "/nothing",
        "/v1/jobs/nothere",
        "/?cursor=x",
        f"/v1/jobs/{served.job}?limit=x",
    ):
        document = site.get(path, headers={"Accept": "application/json"})
        if document.headers["content-type"] != "application/problem+json":
            continue
        problem = document.json()
        shown = read(site, path, problem["status"]).text
        assert problem["code"] in shown
        assert problem["detail"] in shown
        assert (problem["hint"] or "") in shown


def test_a_list_that_cannot_be_shown_is_not_followed(site: httpx.Client) -> None:
    answer = site.get("/live?cursor=zz", headers={"Accept": "*/*"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad-cursor")


def test_programs_get_problem_documents(served: Served) -> None:
    with served.http() as http:
        for accept in ("*/*", "application/json"):
            answer = http.get("/v1/jobs/nothere", headers={"Accept": accept})
            assert answer.headers["content-type"] == "application/problem+json"


def test_buttons_work_without_a_script(served: Served, site: httpx.Client) -> None:
    job = served.made.submit()
    here = f"/jobs/{job}"
    answer = site.post(f"{here}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, here)
    assert served.made.jobs.get(job).state == JobState.CANCELLING
    served.made.move(job, JobState.CANCELLED)
    again = site.post(f"{here}/retry")
    assert again.status_code == 409
    assert "cancelled" in Reader(again.text).text
    answer = site.post(f"{here}/delete")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert site.get(here).status_code == 404


def test_a_failed_job_is_tried_again_from_its_page(served: Served, site: httpx.Client) -> None:
    job = failed(served.made)
    assert site.post(f"/jobs/{job}/retry").headers["location"] == f"/jobs/{job}"
    assert served.made.jobs.get(job).state == JobState.QUEUED


def test_another_sites_form_changes_nothing(served: Served, site: httpx.Client) -> None:
    job = served.made.submit()
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = site.post(f"/jobs/{job}/cancel", headers=headers)
        assert answer.status_code == 403
        assert "cross-site" in Reader(answer.text).text
    assert served.made.jobs.get(job).state == JobState.QUEUED


def test_who_may_only_read_is_offered_no_buttons(served: Served, scene: Mapping[str, str]) -> None:
    with visitor(served, "reader") as site:
        shown = read(site, f"/jobs/{scene['running']}")
        assert {action for method, action in shown.forms if method == "post"} == {
            "/logout",
            f"/jobs/{scene['running']}/exports",
        }
        assert site.post(f"/jobs/{scene['running']}/cancel").status_code == 403


def test_a_file_for_a_fit_is_asked_for_and_listed(served: Served, site: httpx.Client) -> None:
    answer = site.post(f"/jobs/{served.job}/exports", data={"format": "uhi-zip"})
    assert answer.status_code == 303
    shown = Reader(site.get(f"/jobs/{served.job}").text).text
    assert re.search(r"uhi-zip snapshot 1\s+(queued|running|ready|failed)", shown)
    assert site.post(f"/jobs/{served.job}/exports", data={"format": EVIL}).status_code == 422


def test_a_picture_is_drawn_for_light_and_dark_and_kept(served: Served, site: httpx.Client) -> None:
    place = f"/jobs/{served.job}/preview.png"
    light, dark = (site.get(place, params={"shade": shade, "generation": 1}) for shade in ("light", "dark"))
    for answer in (light, dark):
        assert answer.headers["content-type"] == "image/png"
        assert struct.unpack(">II", answer.content[16:24]) == (1120, 736)
        assert "immutable" in answer.headers["cache-control"]
        assert len(answer.content) < 150_000
    assert light.content != dark.content
    known = {"If-None-Match": light.headers["etag"]}
    assert site.get(place, params={"generation": 1}, headers=known).status_code == 304
    assert site.get(place).headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize(
    "wish",
    [
        {"show": "process:W", "axis": "eta", "variation": "massW"},
        {"show": "dataset:SingleMuon", "axis": "mt"},
        {"show": "dataset:Wplusmunu", "axis": "charge", "variation": "effEta3Charge1", "region": "all"},
        {"variation": "wide3"},
        {"variation": "wide3Up"},
    ],
)
def test_one_chooses_what_is_drawn(served: Served, site: httpx.Client, wish: dict[str, str]) -> None:
    answer = site.get(f"/jobs/{served.job}/preview.png", params=wish)
    assert answer.headers["content-type"] == "image/png"
    plain = site.get(f"/jobs/{served.job}/preview.png")
    assert answer.content != plain.content
    shown = site.get(f"/jobs/{served.job}", params=wish).text
    for value in wish.values():
        assert f'value="{value}"' in shown
    assert str(httpx.QueryParams(wish)).replace("&", "&amp;").split("&amp;")[0] in shown


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"variation": "nothing"}, "unknown-nuisance"),
        ({"axis": "nothing"}, "unknown-axis"),
        ({"show": "process:nothing"}, "unknown-data-set"),
        ({"histogram": "nothing"}, "unknown-histogram"),
    ],
)
def test_what_cannot_be_drawn_is_said_within_the_page(
    served: Served, site: httpx.Client, wish: dict[str, str], code: str
) -> None:
    assert code in read(site, f"/jobs/{served.job}/preview.png?{httpx.QueryParams(wish)}", 404).text
    shown = read(site, f"/jobs/{served.job}?{httpx.QueryParams(wish)}")
    assert "There is no" in shown.text
    assert "Provenance" in shown.text


def test_nuisances_are_listed_by_group(served: Served, site: httpx.Client) -> None:
    shown = read(site, f"/jobs/{served.job}/nuisances")
    assert {"massW", "effEta3Charge1", "wide69"} <= set(shown.text.split())
    options = site.get(f"/jobs/{served.job}/nuisances", headers={"HX-Request": "true"}).text
    assert '<option value="massW">mass</option>' in options
    assert "<html" not in options


def look(**changed: Any) -> Look:
    """Return a picture of two bins."""
    given: dict[str, Any] = {
        "edges": np.array([0.0, 1.0, 2.0]),
        "ticks": (),
        "label": "x",
        "unit": "events",
        "stack": (("W", "#3f90da", np.array([10.0, 0.0])), ("$Z$", "#ffa90e", np.array([5.0, 0.0]))),
        "variance": np.array([1.0, 0.0]),
        "data": np.array([14.0, 1.0]),
        "shifts": (("massW up", np.array([15.1, 0.0])),),
        "title": "$ no formula",
        "cuts": "",
        "source": "job x",
        "mark": "INCOMPLETE: 40.0 % of the events",
    }
    return Look(**{**given, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"data": None, "shifts": (), "mark": ""},
        {"stack": (), "shifts": ()},
        {"ticks": ("a", "b")},
        {"stack": (("W", "#3f90da", np.zeros(2)),), "variance": np.zeros(2), "data": np.zeros(2)},
        {"stack": (("W", "#3f90da", np.array([-3.0, 2.0])),)},
    ],
)
def test_pictures_are_drawn_of_odd_numbers_too(changed: dict[str, Any]) -> None:
    for shade, shape in (("light", "wide"), ("dark", "narrow")):
        assert preview.draw(look(**changed), shade, shape).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("effect", "reach", "times"),
    [(0.1, 0.1, 1), (0.01, 0.1, 5), (1e-4, 0.1, 500), (0.0, 0.1, 1), (0.3, 0.0, 1)],
)
def test_what_is_too_small_to_be_seen_is_drawn_larger(effect: float, reach: float, times: float) -> None:
    assert preview._magnified(effect, reach) == times


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palettes(root: Path) -> list[dict[str, str]]:
    sheet = (root / "api/static/binworks.css").read_text()
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", sheet.split("@media")[0]))
    dark = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", sheet.split("@media")[1]))
    return [light, dark]


def test_text_stands_out_from_its_ground_in_light_and_dark(root: Path) -> None:
    grounds = [
        ("ink", "soft"),
        ("ink", "plain-soft"),
        ("quiet", "soft"),
        ("quiet", "page"),
        ("on-accent", "accent"),
    ]
    grounds += [(name, f"{name}-soft") for name in ("good", "busy", "bad", "warn")]
    grounds += [(name, "card") for name in ("ink", "quiet", "link", "bad", "good", "warn")] + [
        ("card", "bad")
    ]
    for palette in palettes(root):
        low = {pair: contrast(*(palette[name] for name in pair)) for pair in grounds}
        assert {pair: found for pair, found in low.items() if found < 4.5} == {}
    for theme in preview.THEMES.values():
        assert (
            min(
                contrast(theme.paper, ink)
                for ink in (theme.ink, theme.quiet, theme.mark, theme.up, theme.down)
            )
            > 4.5
        )


def test_static_files_are_kept_for_ever_under_the_address_of_their_content(
    served: Served, site: httpx.Client
) -> None:
    for path in set(re.findall(r"/static/[^\"]+", site.get(f"/jobs/{served.job}").text)):
        with visitor(served, None) as anybody:
            answer = anybody.get(path)
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert hashlib.sha256(answer.content).hexdigest().startswith(path.split("/")[2])
            assert answer.headers["content-encoding"] == "gzip"
            assert anybody.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
            plain = anybody.get(path, headers={"Accept-Encoding": "identity"})
            assert plain.content == answer.content
    assert site.get("/static/0000000000000000/binworks.css").status_code == 404


def test_vendored_scripts_are_those_that_the_list_names(root: Path) -> None:
    vendor = root / "api/static/vendor"
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (vendor / "README.md").read_text(), re.M)
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.glob("*.*s*")
        if path.suffix in (".js", ".css")
    }
    assert dict(rows) == there


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.0, "0"),
        (7, "7"),
        (999.4, "999"),
        (12_345_678, "12.3 M"),
        (3.14159, "3.14"),
        (2e9, "2.00 G"),
    ],
)
def test_numbers_are_short(number: float | None, text: str) -> None:
    assert page_templates.short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7505, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_times_to_go_are_said_in_two_units(seconds: float | None, text: str) -> None:
    assert page_templates.duration(seconds) == text


def test_a_page_of_fifty_jobs_with_a_thousand_units_is_made_in_fifty_milliseconds(
    served: Served, tmp_path: Path
) -> None:
    made = HandMade.make(tmp_path / "home")
    row = {
        "dataset": "Wplusmunu",
        "ranges": [],
        "events": 1000,
        "partial": "p",
        "base": "b",
        "turn": 0.5,
        "entries": 1000,
        "sum_sign": 900,
    }
    for _ in range(50):
        job = made.submit()
        made.move(job, JobState.RUNNING)
        with made.database.write() as connection:
            states = [UnitState.DONE] * 500 + [UnitState.PENDING] * 500
            done = [
                {**row, "job": job, "unit": i, "state": state, "finished": time.time()}
                for i, state in enumerate(states)
            ]
            connection.execute(insert(units), done)
    context = Context.open(made.settings)
    user = User("alice", "alice", "user", frozenset({"read"}), None)  # type: ignore[arg-type]
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        table = page_parts.rows(context, user, None, None)
        seconds.append(time.perf_counter() - begin)
    assert table.count("<tr>") == 51
    print(f"\nthe list of 50 jobs of 1000 units: {1e3 * min(seconds):.1f} ms")
    assert min(seconds) < 0.05
