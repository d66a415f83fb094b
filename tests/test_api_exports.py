"""Files for fits over REST: asked for, made aside, downloaded; nobody else's, and not without events."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from hand_made_service import GROUPS, ApiProcess, HandMade, Served, filled, free_port
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as NoConnectionError
from test_api_jobs import problem

from binworks.api.exporting import Exporting
from binworks.service import layout
from binworks.service.database import exports
from binworks.service.exports import Ask, Exports, code_digest
from binworks.service.model import JobState
from binworks.service.stored import StoredSource
from binworks.tensors.card import Card
from binworks.tensors.export import FORMATS, module
from binworks.tensors.fitbuild import fit_input

pytest_plugins = ["served_fixture"]
SMALL = {"systematics": ["mass"]}


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client


def ask(web: httpx.Client, job: str, card: Any = SMALL, format: str = "rabbit") -> httpx.Response:  # noqa: A002
    return web.post(f"/v1/jobs/{job}/exports", json={"format": format, "card": card})


def ready(web: httpx.Client, address: str) -> dict[str, Any]:
    answer = web.get(address, headers={"Prefer": "wait=60"}, timeout=90)
    assert answer.headers["Preference-Applied"] == "wait=60"
    found: dict[str, Any] = answer.json()
    assert found["state"] == "ready", found
    return found


@pytest.fixture(scope="module")
def made(served: Served) -> str:
    """Return the address of an export that is ready."""
    with served.http() as web:
        address = ask(web, served.job).headers["Location"]
        ready(web, address)
    return str(address)


def row(served: Served, export: str) -> Any:
    with served.made.database.read() as connection:
        return connection.execute(select(exports).where(exports.c.id == export)).one()


def test_an_export_is_the_tensor_of_the_stored_sums(
    served: Served, web: httpx.Client, made: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.hdf5"
    path.write_bytes(web.get(f"{made}/file").content)
    fit = fit_input(Card.model_validate(SMALL), {None: StoredSource(served.made.store, served.job, 1)})
    with h5py.File(path) as file:
        assert file.attrs["job"] == served.job
        assert [name.decode() for name in file["hprocs"]] == list(fit.processes)
        np.testing.assert_array_equal(np.ravel(file["hdata_obs"]), fit.channels[0].data)


def test_the_answer_says_where_it_is_and_the_same_ask_is_the_same_export(
    served: Served, web: httpx.Client, made: str
) -> None:
    again = ask(web, served.job)
    assert (again.status_code, again.headers["Location"]) == (200, made)
    spelt = web.post(
        f"/v1/jobs/{served.job}/exports",
        json={
            "format": "rabbit",
            "card": Card.model_validate(SMALL).model_dump(mode="json"),
            "generation": 1,
        },
    )
    assert spelt.json()["id"] == again.json()["id"]
    assert again.json()["state"] == "ready"
    listed = web.get(f"/v1/jobs/{served.job}/exports", params={"limit": 1}).json()
    assert listed["exports"][0]["job"] == served.job


def test_without_a_card_it_is_the_processors(served: Served) -> None:
    job = served.made.finished({"Wplusmunu": filled(4, groups=())})
    with served.http() as web:
        found = ask(web, job, None).json()
        assert found["card"]["inflation"] == 1.25
        assert found["card"]["nonprompt"] is None, "there are no data"
        web.delete(f"/v1/jobs/{job}/exports/{found['id']}")


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_format_is_made_with_its_name_and_type(
    served: Served,
    web: httpx.Client,
    format: str,  # noqa: A002
) -> None:
    few = {"mt": 2, "relIso": 0, "charge": 1, "eta": [20, 28]}  # as pyhf wants it
    asked = ask(web, served.job, {"channels": [{"select": few}], **SMALL}, format)
    assert asked.status_code in (200, 201)
    found = ready(web, asked.headers["Location"])
    answer = web.get(f"{asked.headers['Location']}/file")
    assert answer.headers["Content-Type"] == module(format).MEDIA_TYPE == found["media_type"]
    assert found["file_name"].endswith(module(format).SUFFIX)
    assert f'filename="{found["file_name"]}"' in answer.headers["Content-Disposition"]
    assert hashlib.sha256(answer.content).hexdigest() == found["sha256"]


def test_a_download_is_gone_on_with_and_checked(web: httpx.Client, made: str) -> None:
    whole = web.get(f"{made}/file")
    tag, size = whole.headers["ETag"], len(whole.content)
    digest = base64.b64encode(hashlib.sha256(whole.content).digest()).decode()
    head = web.head(f"{made}/file")
    rest = web.get(f"{made}/file", headers={"Range": f"bytes={size // 2}-", "If-Range": tag})
    last = web.get(f"{made}/file", headers={"Range": "bytes=-7"})
    for answer in (whole, head, rest, last):
        assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        assert answer.headers["ETag"] == tag
        assert answer.headers["Accept-Ranges"] == "bytes"
    assert (head.content, int(head.headers["Content-Length"])) == (b"", size)
    assert (rest.status_code, whole.content[: size // 2] + rest.content) == (206, whole.content)
    assert last.content == whole.content[-7:]
    other = web.get(f"{made}/file", headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert web.get(f"{made}/file", headers={"If-None-Match": tag}).status_code == 304
    problem(web.get(f"{made}/file", headers={"Range": f"bytes={size}-"}), 416, "range-not-satisfiable")


@pytest.mark.parametrize(
    ("body", "where", "code"),
    [
        ({"format": "rabit"}, "body.format", "unknown-format"),
        ({}, "body.format", "invalid-request"),
        ({"format": "rabbit", "colour": 1}, "body.colour", "invalid-request"),
        (
            {"format": "rabbit", "card": {"norms": [{"name": "x"}]}},
            "body.card.norms.0.processes",
            "invalid-request",
        ),
        (
            {"format": "rabbit", "card": {"channels": [{"mask": [-1]}]}},
            "body.card.channels.0.mask.0",
            "invalid-request",
        ),
        (
            {"format": "rabbit", "card": {"channels": [{"datasets": ["Wplusmumu"]}]}},
            "body.card.channels.0.datasets",
            "unknown-data-set",
        ),
        (
            {"format": "rabbit", "card": {"channels": [{"histogram": "nominl"}]}},
            "body.card.channels.0.histogram",
            "unknown-histogram",
        ),
        (
            {"format": "rabbit", "card": {"channels": [{"select": {"mt": 7}}]}},
            "body.card.channels.0.select",
            "unknown-bin",
        ),
        (
            {"format": "rabbit", "card": {"channels": [{"select": {"mtt": 0}}]}},
            "body.card.channels.0.select",
            "unknown-axis",
        ),
    ],
)
def test_what_is_wrong_with_a_card_is_named(
    served: Served, web: httpx.Client, body: dict[str, Any], where: str, code: str
) -> None:
    answer = web.post(f"/v1/jobs/{served.job}/exports", json=body)
    problem(answer, 422, code)
    assert answer.json()["where"] == where


def test_what_only_the_making_shows_is_the_exports_error(served: Served, web: httpx.Client) -> None:
    address = ask(web, served.job, {"systematics": ["mass", "nosuch"]}).headers["Location"]
    found = web.get(address, headers={"Prefer": "wait=60"}, timeout=90).json()
    assert (found["state"], found["error"]["code"]) == ("failed", "unknown-systematic")
    problem(web.get(f"{address}/file"), 409, "export-failed")
    assert ask(web, served.job, {"systematics": ["mass", "nosuch"]}).json()["state"] in ("queued", "running")


def test_a_foreign_job_and_its_exports_look_absent(served: Served, made: str) -> None:
    with served.http("bob") as bob:
        other = served.made.finished({"Wplusmunu": filled(4, groups=())}, "bob")
        for method, address in (
            ("GET", f"/v1/jobs/{served.job}/exports"),
            ("GET", made),
            ("GET", f"{made}/file"),
            ("DELETE", made),
        ):
            problem(bob.request(method, address), 404, "unknown-job")
        problem(ask(bob, served.job), 404, "unknown-job")
        export = made.rpartition("/")[2]
        for address in (f"/v1/jobs/{other}/exports/{export}", f"/v1/jobs/{other}/exports/{export}/file"):
            problem(bob.get(address), 404, "unknown-export")
        foreign = ask(bob, other, {"channels": [{"name": "a"}, {"name": "b", "job": served.job}]})
        problem(foreign, 404, "unknown-job")
        assert foreign.json()["where"] == "body.card.channels.1.job"
    with served.http("reader") as reader:
        assert reader.get(made).status_code == 200
        problem(reader.delete(made), 403, "missing-scope")


def test_a_result_that_lacks_events_is_refused_unless_asked_for(served: Served, web: httpx.Client) -> None:
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING)
    problem(ask(web, job), 409, "no-snapshot")
    job = served.made.incomplete({"Wplusmunu": filled(7, groups=()), "SingleMuon": filled(8, groups=())})
    card = {"norms": [{"name": "luminosity", "processes": ["*"], "size": 1.012}]}
    problem(ask(web, job, card), 409, "incomplete")
    problem(ask(web, served.job, {"channels": [{"job": job}]}), 409, "incomplete")
    address = ask(web, job, {"allow_partial": True, **card}).headers["Location"]
    ready(web, address)
    asked = {"format": "rabbit", "card": card, "allow_partial": True}
    assert web.post(f"/v1/jobs/{job}/exports", json=asked).headers["Location"] == address


def test_a_second_channel_may_be_another_jobs(served: Served, web: httpx.Client) -> None:
    other = served.made.finished({"Wplusmunu": filled(4, groups=()), "SingleMuon": filled(5, groups=())})
    card = {"channels": [{"name": "a"}, {"name": "b", "job": other}], **SMALL}
    served.made.database.close()
    address = ask(web, served.job, card, "uhi-zip").headers["Location"]
    ready(web, address)
    assert row(served, address.rpartition("/")[2]).sources == {other: 1}


def test_an_export_of_two_jobs_is_for_those_who_may_read_both(served: Served, web: httpx.Client) -> None:
    sums = {"Wplusmunu": filled(4, groups=GROUPS[:1])}
    shared, hidden = served.made.finished(sums), served.made.finished(sums)
    card = {"channels": [{"name": "a"}, {"name": "b", "job": hidden}], "data": "prediction", **SMALL}
    address = ask(web, shared, card, "uhi-zip").headers["Location"]
    ready(web, address)
    other = ask(web, shared, {"data": "prediction", **SMALL}, "uhi-zip").json()["id"]

    def listed(reader: httpx.Client) -> list[str]:
        answer = reader.get(f"/v1/jobs/{shared}/exports").json()
        return [one["id"] for one in answer["exports"]]

    both = [other, address.rpartition("/")[2]]
    assert web.put(f"/v1/jobs/{shared}/shares/bob").is_success
    with served.http("bob") as bob, served.http("admin") as admin:
        for place in (address, f"{address}/file"):
            problem(bob.get(place), 404, "unknown-export")
        assert listed(bob) == [other]
        first = bob.get(f"/v1/jobs/{shared}/exports", params={"limit": 1}).json()
        assert first["next"] is None
        assert both[1] not in bob.get(f"/jobs/{shared}").text
        assert listed(web) == listed(admin) == both
        assert web.put(f"/v1/jobs/{hidden}/shares/bob").is_success
        assert bob.get(f"{address}/file").status_code == 200
        assert listed(bob) == both
        assert both[1] in bob.get(f"/jobs/{shared}").text
    assert web.delete(f"/v1/jobs/{hidden}").is_success
    problem(web.get(address), 404, "unknown-export")


def test_of_two_who_ask_at_once_of_two_processes_both_get_the_one_that_is_made(served: Served) -> None:
    home, card = served.made.settings.home, {"inflation": 1.5, **SMALL}
    with ApiProcess(home, free_port()) as second:
        urls, found = [served.url, second.url] * 3, []

        def work(url: str) -> None:
            with httpx.Client(base_url=url, headers=served.headers(), timeout=60) as web:
                found.append(ready(web, ask(web, served.job, card).headers["Location"]))

        threads = [threading.Thread(target=work, args=(url,)) for url in urls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        second.stop()
    assert len(found) == 6
    assert len({json.dumps(one, sort_keys=True) for one in found}) == 1
    kept = layout.exports(served.job, found[0]["id"])
    assert served.made.store.children(kept) == [str(row(served, found[0]["id"]).fence)]
    assert row(served, found[0]["id"]).crashes == 0


def test_a_kill_of_both_processes_loses_nothing_that_was_asked_for(served: Served) -> None:
    home = served.made.settings.home
    with ApiProcess(home, free_port()) as api:
        with httpx.Client(base_url=api.url, headers=served.headers(), timeout=60) as web:
            address = ask(web, served.job, {"inflation": 1.7}).headers["Location"]
        export = address.rpartition("/")[2]
        end = time.monotonic() + 30
        while (found := row(served, export)).state == "queued" and time.monotonic() < end:
            time.sleep(0.01)
        api.kill()
        if found.holder is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(found.holder.rpartition(":")[2]), signal.SIGKILL)
        api.start()
        with httpx.Client(base_url=api.url, headers=served.headers(), timeout=60) as web:
            view = ready(web, address)
            content = web.get(f"{address}/file").content
        assert hashlib.sha256(content).hexdigest() == view["sha256"]
        api.stop()


def test_a_deleted_export_is_gone_with_its_file(served: Served, web: httpx.Client) -> None:
    address = ask(web, served.job, {"inflation": 2.5, **SMALL}).headers["Location"]
    ready(web, address)
    folder = layout.exports(served.job, address.rpartition("/")[2])
    assert len(served.made.store.children(folder)) == 1
    assert web.delete(address).status_code == 204
    assert served.made.store.children(folder) == []
    problem(web.get(address), 404, "unknown-export")
    problem(web.delete(address), 404, "unknown-export")


def test_a_file_that_is_lost_is_told_once_and_made_again(served: Served, web: httpx.Client) -> None:
    card = {"inflation": 5.5, **SMALL}
    address = ask(web, served.job, card).headers["Location"]
    before = ready(web, address)
    store, folder = served.made.store, layout.exports(served.job, before["id"])
    for name in store.children(folder):
        store.remove(f"{folder}/{name}")
    problem(web.get(f"{address}/file"), 409, "export-lost")
    assert web.get(address).json()["error"]["code"] == "export-lost"
    assert ask(web, served.job, card).headers["Location"] == address
    after = ready(web, address)
    assert hashlib.sha256(web.get(f"{address}/file").content).hexdigest() == after["sha256"]


def test_a_file_that_is_not_made_yet_is_no_file(served: Served, web: httpx.Client) -> None:
    address = ask(web, served.job, {"inflation": 3.5}).headers["Location"]
    problem(web.get(f"{address}/file"), 409, "export-not-ready")
    ready(web, address)


def test_the_process_ends_with_the_api(tmp_path: Path) -> None:
    made = HandMade.make(tmp_path / "home")  # where no other API starts it
    job = made.finished({"Wplusmunu": filled(4, groups=GROUPS[:1])})
    made.database.close()
    headers = {"Authorization": f"Bearer {made.tokens['alice']}"}
    with ApiProcess(made.settings.home, made.settings.port) as api:
        with httpx.Client(base_url=api.url, headers=headers, timeout=60) as web:
            ready(web, ask(web, job, {"data": "prediction", **SMALL}, "uhi-zip").headers["Location"])
        pids = Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split()
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
        assert [b"binworks.service.exporting" in command for command in commands] == [True]
        api.stop()
    assert [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()] == []


def test_whatever_goes_wrong_once_the_next_look_sees_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = HandMade.make(tmp_path / "home")
    job = made.finished({"Wplusmunu": filled(4, groups=()), "SingleMuon": filled(5, groups=())})
    failures: list[BaseException] = [NoConnectionError("all are in use")]

    class Shaken(Exports):
        def waiting(self) -> bool:
            if failures:
                raise failures.pop()
            return super().waiting()

    caplog.set_level("ERROR", "binworks.api.exporting")
    kept = Shaken(made.database)
    card = Card.model_validate({"norms": [{"name": "luminosity", "processes": ["*"], "size": 1.012}]})
    view, _ = kept.ask(Ask(job, 1, "uhi-zip", card, {}, code_digest()), "alice")
    made.settings.logs.write_text("no process can be started: its output has no place")

    async def supervised() -> None:
        exporting = Exporting(made.settings, kept)
        exporting.start()
        exporting.wake()
        end = time.monotonic() + 60
        while not kept.get(job, view.id).state.finished and time.monotonic() < end:
            await asyncio.sleep(0.1)
            if len(caplog.records) == 2 and made.settings.logs.is_file():
                made.settings.logs.unlink()
        await exporting.close()

    asyncio.run(supervised())
    assert kept.get(job, view.id).state == "ready"
    errors = [record.exc_info and record.exc_info[0] for record in caplog.records]
    assert errors == [NoConnectionError, FileExistsError]
    made.database.close()
