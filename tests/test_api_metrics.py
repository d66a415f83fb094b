from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from hand_made_service import HandMade, Served, free_port
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update

from binworks.api import checks, metrics
from binworks.api.app import create_app
from binworks.api.checks import Checks, Space
from binworks.deploy.base import ClusterStatus
from binworks.deploy.tls import Certificates
from binworks.service import lease, workforce
from binworks.service.database import jobs
from binworks.service.database import lease as leases
from binworks.service.model import JobState, UnitState
from binworks.service.workforce import Bounds, Status

pytest_plugins = ["served_fixture"]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[f"binworks_{name}", frozenset(labels.items())]


class Http(httpx.Client):
    """A client of an application that runs in a thread."""

    app: FastAPI


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HandMade]:
    found = HandMade.make(tmp_path / "home")
    yield found
    found.database.close()


@pytest.fixture
def http(made: HandMade, monkeypatch: pytest.MonkeyPatch) -> Iterator[Http]:
    """The application in this process, which looks anew each time."""
    for name in ("GOOD_SECONDS", "BAD_SECONDS"):
        monkeypatch.setattr(checks, name, 0.0)
    monkeypatch.setattr(metrics, "FRESH_SECONDS", 0.0)
    app = create_app(made.settings)
    server = uvicorn.Server(uvicorn.Config(app, port=made.settings.port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        headers = {"Authorization": f"Bearer {made.tokens['alice']}"}
        with Http(base_url=made.settings.url, headers=headers, timeout=30) as client:
            client.app = app
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def clustered(made: HandMade) -> HandMade:
    """A service on a cluster: `binworks up` says how its workers are, and it has certificates."""
    folder = made.settings.home / "tls"
    Certificates.make(folder, days=10)
    made.settings = made.settings.model_copy(update={"tls": folder})
    status = Status(Bounds(0, 9), 3, ClusterStatus(scheduler=True, wanted=3, alive=2), connected=1)
    (made.settings.home / workforce.STATUS_FILE).write_text(json.dumps(asdict(status)))
    return made


def scrape(http: Any) -> Samples:
    answered = http.get("/metrics")
    assert answered.status_code == 200
    assert answered.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(answered.text)


def hold_lease(made: HandMade, seconds: float) -> None:
    with made.database.write() as connection:
        connection.execute(leases.delete())
        row = {"name": lease.NAME, "holder": "somebody", "fence": 1, "expires": time.time() + seconds}
        connection.execute(insert(leases).values(**row))


@contextmanager
def listening(address: str) -> Iterator[None]:
    """Accept connections where the scheduler should be."""
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as server:
        stop = threading.Event()
        server.settimeout(0.1)

        def accept() -> None:
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


# numbers


def test_jobs_units_and_events_are_counted_over_the_ledger(made: HandMade, http: Http) -> None:
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.lack(job)  # 90 events done, 10 skipped
    found = scrape(http)
    assert value(found, "jobs", state="running") == 1
    assert value(found, "jobs", state="succeeded") == 0
    assert (value(found, "units_done"), value(found, "events_done")) == (1, 90)
    made.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
    for _ in range(2):
        found = scrape(http)
        assert value(found, "jobs", state="succeeded") == 1
        assert (value(found, "units_done"), value(found, "events_done")) == (1, 90)


def test_a_job_that_is_retried_or_deleted_is_counted_anew(made: HandMade, http: Http) -> None:
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.lack(job, state=UnitState.FAILED)
    made.move(job, JobState.FAILED)
    assert value(scrape(http), "units_done") == 1
    assert http.delete(f"/v1/jobs/{job}").status_code == 204
    assert value(scrape(http), "units_done") == 0


def test_the_backlog_is_what_is_not_settled(made: HandMade, http: Http) -> None:
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.lack(job, state=UnitState.PENDING)
    found = scrape(http)
    assert value(found, "backlog_units", state="pending") == 1
    assert value(found, "backlog_units", state="running") == 0


def test_workers_and_certificates_are_told_where_there_are_some(clustered: HandMade, http: Http) -> None:
    clustered.move(clustered.submit(), JobState.RUNNING)
    found = scrape(http)
    assert value(found, "workers_wanted") == 1
    assert (value(found, "workers", state="wanted"), value(found, "workers", state="alive")) == (3, 2)
    assert value(found, "workers", state="connected") == 1
    assert 9 < value(found, "certificate_seconds", role="worker") / 86400 < 10
    (clustered.settings.home / workforce.STATUS_FILE).unlink()
    assert ("binworks_workers", frozenset({("state", "alive")})) not in scrape(http)


def test_the_age_of_the_oldest_snapshot_grows_from_the_begin_of_a_job(made: HandMade, http: Http) -> None:
    assert value(scrape(http), "oldest_snapshot_seconds") == 0
    job = made.submit()
    made.move(job, JobState.RUNNING)
    with made.database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(started=time.time() - 500))
    assert 500 <= value(scrape(http), "oldest_snapshot_seconds") < 600


def test_driver_scheduler_and_disks_are_there_or_not(made: HandMade, http: Http) -> None:
    found = scrape(http)
    assert value(found, "driver_alive") == value(found, "driver_lease_seconds") == 0
    assert value(found, "scheduler_reachable") == 0
    assert value(found, "database_reachable") == value(found, "store_reachable") == 1
    assert value(found, "free_bytes", place="store") > 0
    hold_lease(made, 10)
    assert value(scrape(http), "driver_alive") == 1
    assert 9 < value(scrape(http), "driver_lease_seconds") <= 10


def test_without_its_database_the_service_still_says_so(made: HandMade, http: Http) -> None:
    made.database.close()
    made.settings.home.joinpath("jobs.sqlite").rename(made.settings.home / "gone")
    http.app.state.context.database.engine.dispose()
    found = scrape(http)
    assert value(found, "database_reachable") == value(found, "driver_alive") == 0
    assert not any(name == "binworks_jobs" for name, _ in found)


def test_requests_are_counted_by_route_and_never_by_path(made: HandMade, http: Http) -> None:
    job = made.submit()
    for path in (f"/v1/jobs/{job}", "/v1/jobs/absent", "/v1/jobs/absent2", "/nowhere/at/all", "/v1/jobs"):
        http.get(path)
    found = scrape(http)
    assert value(found, "requests_total", method="GET", route="/v1/jobs/{job}", status="200") == 1
    assert value(found, "requests_total", method="GET", route="/v1/jobs/{job}", status="404") == 2
    assert value(found, "requests_total", method="GET", route="unmatched", status="404") == 1
    assert value(found, "request_seconds_count", method="GET", route="/v1/jobs/{job}") == 3


def test_no_label_names_a_job_an_owner_or_a_file(made: HandMade, http: Http) -> None:
    job = made.submit(label="precious")
    http.get(f"/v1/jobs/{job}")
    text = http.get("/metrics").text
    for secret in (job, "alice", "precious", str(made.settings.home), *made.tokens.values()):
        assert secret not in text


def test_readers_of_event_streams_are_counted_while_they_read(served: Served) -> None:
    job = served.made.submit()
    with served.http() as http, http.stream("GET", f"/v1/jobs/{job}/events"):
        assert value(scrape(http), "sse_clients") == 1
    with served.http() as http:
        deadline = time.monotonic() + 10
        while value(scrape(http), "sse_clients") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert value(scrape(http), "sse_clients") == 0


def test_what_stands_in_the_database_is_counted_at_most_once_in_two_seconds(made: HandMade) -> None:
    ledger = metrics.Ledger(made.database, Checks(made.settings, made.database, made.store))
    before = list(ledger.collect())
    made.submit()
    assert list(ledger.collect()) == before


# ready or not


def test_all_is_well_if_everything_is_there(made: HandMade, http: Http) -> None:
    hold_lease(made, 60)
    with listening(made.settings.scheduler):
        answered = http.get("/readyz")
    assert answered.json() == {"status": "ok", "checks": dict.fromkeys(checks.NAMES, "ok")}


def test_without_scheduler_and_driver_it_is_red_and_the_api_itself_ready(http: Http) -> None:
    answered = http.get("/readyz")
    assert answered.status_code == 503
    assert answered.headers["content-type"] == "application/problem+json"
    assert answered.json()["code"] == "no-scheduler"
    assert answered.json()["checks"] == {
        "database": "ok",
        "store": "ok",
        "space": "ok",
        "scheduler": "no-scheduler",
        "driver": "no-driver",
    }
    assert http.get("/readyz?only=database").json()["checks"] == {"database": "ok"}


def test_an_expired_lease_is_no_driver(made: HandMade, http: Http) -> None:
    hold_lease(made, -1)
    assert http.get("/readyz?only=driver").json()["code"] == "no-driver"


def test_a_full_disk_is_red(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_space", lambda _path: Space(1 << 20, 1 << 40))
    answered = http.get("/readyz?only=database&only=space")
    assert (answered.status_code, answered.json()["code"]) == (503, "disk-full")
    assert str(1 << 20) in answered.json()["detail"]


@pytest.mark.parametrize(
    ("free", "total", "full"),
    [(65 << 20, 1 << 40, False), (63 << 20, 1 << 40, True), (100_000, 6_000_000, False)],
)
def test_a_small_disk_may_have_less_room_than_a_large_one(free: int, total: int, full: bool) -> None:
    assert Space(free, total).full == full


def test_a_store_that_takes_nothing_is_red_and_why_stands_in_the_log_alone(
    made: HandMade, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    tmp = made.settings.home / "store" / "tmp"
    tmp.rename(tmp.with_name("elsewhere"))
    with caplog.at_level("WARNING"):
        answered = [http.get("/readyz") for _ in range(3)]
    assert answered[0].json()["checks"]["store"] == "no-store"
    assert answered[0].text == answered[2].text
    (told,) = (
        each.getMessage()
        for each in caplog.records
        if each.name == "binworks.api.checks" and "store" in each.getMessage()
    )
    reason = told.partition(": ")[2]
    assert reason
    assert reason not in answered[0].text


def test_a_database_that_is_gone_is_red(made: HandMade, http: Http) -> None:
    made.database.close()
    made.settings.home.joinpath("jobs.sqlite").rename(made.settings.home / "gone")
    http.app.state.context.database.engine.dispose()
    answered = http.get("/readyz")
    assert answered.json()["code"] == "no-database"
    assert answered.json()["checks"]["driver"] == "no-database"


def test_a_check_that_is_not_known_is_refused(served: Served) -> None:
    assert httpx.get(f"{served.url}/readyz?only=weather").json()["code"] == "invalid-request"


def test_a_good_answer_is_kept_for_a_while_and_a_bad_one_not(made: HandMade) -> None:
    port = free_port()
    settings = made.settings.model_copy(update={"scheduler": f"tcp://127.0.0.1:{port}"})
    found = Checks(settings, made.database, made.store)
    assert found.failed(["scheduler"])
    with listening(settings.scheduler):
        deadline = time.monotonic() + 5
        while found.failed(["scheduler"]) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not found.failed(["scheduler"])


# the access log


def access_log(made: HandMade, http: Http) -> list[dict[str, Any]]:
    http.app.access.flush()
    return [json.loads(line) for line in (made.settings.logs / "access.log").read_text().splitlines()]


def test_a_request_leaves_a_line_with_its_route_job_and_owner(made: HandMade, http: Http) -> None:
    job = made.submit()
    http.get(f"/v1/jobs/{job}?secret=hush", headers={"X-Request-Id": "my-own-id-1"})
    (line,) = access_log(made, http)
    assert line.pop("ms") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "binworks.access",
        "message": "GET /v1/jobs/{job} 200",
        "method": "GET",
        "route": "/v1/jobs/{job}",
        "status": 200,
        "owner": "alice",
        "job": job,
        "request": "my-own-id-1",
    }


def test_no_line_holds_a_token_a_query_or_a_path(made: HandMade, http: Http) -> None:
    http.get("/v1/jobs?cursor=hush", headers={"Authorization": f"Bearer {made.tokens['bob']}"})
    http.get("/v1/jobs/..%2f..%2fhush", headers={"Authorization": "Bearer hush"})
    http.post("/hush", headers={"Authorization": "hush", "Cookie": "binworks_session=hush"})
    access_log(made, http)
    text = (made.settings.logs / "access.log").read_text()
    assert "hush" not in text
    assert not any(token in text for token in made.tokens.values())


@pytest.mark.parametrize("given", ["short", "x" * 65, "with space in it", 'quo"te-in-it', "new\tline-in-it"])
def test_a_request_id_that_looks_like_none_is_replaced(served: Served, given: str) -> None:
    answered = httpx.get(f"{served.url}/healthz", headers={"X-Request-Id": given})
    assert re.fullmatch(r"[0-9a-f]{16}", answered.headers["x-request-id"])


def test_a_request_id_is_sent_back(served: Served) -> None:
    assert (
        httpx.get(f"{served.url}/healthz", headers={"X-Request-Id": "abcdefgh"}).headers["x-request-id"]
        == "abcdefgh"
    )


def test_the_log_of_the_process_can_be_joined_with_the_access_log(served: Served) -> None:
    with served.http() as http:
        answered = http.get("/healthz")
        deadline = time.monotonic() + 10
        log = served.made.settings.logs / "access.log"
        while answered.headers["x-request-id"] not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert f'"request": "{answered.headers["x-request-id"]}"' in log.read_text()


# the dashboard, the alerts and the page about them


@pytest.fixture
def known(clustered: HandMade, http: Http) -> set[str]:
    """Names of all metrics of a service with workers and certificates."""
    http.get("/healthz")
    return {name for name, _ in scrape(http) if not name.endswith("_created")}


def named(text: str) -> set[str]:
    return set(re.findall(r"\b(?:binworks|process)_[a-z_]+", text))


def expressions(node: Any) -> Iterator[str]:
    """Give every query of a dashboard or of rules."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("expr",) if isinstance(node.get(key), str))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from expressions(item)


def test_the_dashboard_asks_for_metrics_that_there_are(root: Path, known: set[str]) -> None:
    dashboard = json.loads((root / "deploy/grafana/binworks.json").read_text())
    asked = {name for expression in expressions(dashboard["panels"]) for name in named(expression)}
    assert asked
    assert asked <= known
    ours = {name for name in known if name.startswith("binworks_")}
    hidden = {name for name in ours - asked if not name.endswith(("_sum", "_count"))}
    assert hidden <= {"binworks_info"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_ask_for_metrics_that_there_are(root: Path, known: set[str]) -> None:
    rules = yaml.safe_load((root / "deploy/grafana/alerts.yaml").read_text())
    asked = {name for expression in expressions(rules) for name in named(expression)}
    assert asked
    assert asked <= known
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]


def test_the_page_names_every_metric_and_every_alert(root: Path, known: set[str]) -> None:
    page = (root / "docs/howto/monitoring.md").read_text()
    ends = re.compile(r"_(bucket|sum|count)$")
    ours = {ends.sub("", name) for name in known if name.startswith("binworks_")}
    assert ours <= named(page)
    assert {ends.sub("", name) for name in named(page) if name.startswith("binworks_")} <= ours
    rules = yaml.safe_load((root / "deploy/grafana/alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"`(Binworks\w+)`", page))
