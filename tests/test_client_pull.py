"""What the client pulls is what was stored, bit by bit, and it refuses what lacks events unless told otherwise."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hist
import httpx
import numpy as np
import pytest
import uhi.io.zip
from hand_made_service import GROUPS, ApiProcess, Served, filled, free_port

from binworks.client import Client, save
from binworks.client.status import Status
from binworks.client.transport import error_of
from binworks.service.model import JobState
from binworks.tensors import incomplete
from binworks.tensors.errors import BinworksError, ConflictError, RequestError, TransientError
from binworks.tensors.tensor import Contribution, assemble

pytest_plugins = ["served_fixture"]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.client() as client:
        yield client


def test_a_histogram_comes_as_the_same_hist(served: Served, client: Client) -> None:
    for dataset, sums in served.sums.items():
        found = client.job(served.job).histogram(dataset)
        expected = sums.histograms["nominal"].to_hist()
        assert isinstance(found, hist.Hist)
        assert found == expected
        assert found.axes["mt"].edges[-1] == np.inf
        assert np.array_equal(found.variances(), expected.variances())


def test_a_compact_block_keeps_the_names_of_its_columns(served: Served, client: Client) -> None:
    found = client.job(served.job).histogram("Wplusmunu", "mass")
    assert found == served.sums["Wplusmunu"].histograms["mass"].to_hist()
    assert next(iter(found.axes["column"])) == "massShiftW100MeVDown"


def test_a_variation_of_the_service_is_the_clients_own_expansion(served: Served, client: Client) -> None:
    snapshot = client.job(served.job).snapshot()
    sums = snapshot.accumulator("Wminusmunu").histograms
    for expansion in snapshot.expansions():
        name = expansion.variations[-1]
        found = snapshot.histogram("Wminusmunu", variation=name)
        assert np.array_equal(
            found.values(), expansion.expand(sums["nominal"], sums[expansion.group], [name])[0]
        )


def test_the_names_of_the_variations_are_known_by_group(served: Served, client: Client) -> None:
    job = client.job(served.job)
    found = job.variations("Wplusmunu")
    assert found == {group.name: group.expansion.variations for group in GROUPS}
    assert job.variations("SingleMuon") == {}


def test_the_tensor_is_what_the_stored_sums_make(served: Served, client: Client) -> None:
    found = client.job(served.job).tensor()
    scales = {"Wplusmunu": 100 * 11_000 / 90_000, "Wminusmunu": 100 * 8_000 / 90_000, "SingleMuon": 1.0}
    parts = [
        Contribution("W", scales[name], sums, is_data=name == "SingleMuon")
        for name, sums in served.sums.items()
    ]
    expected = assemble(parts, [group.expansion for group in GROUPS])
    assert found.processes == expected.processes == ("W",)
    assert found.nuisances == expected.nuisances
    for ours, theirs in ((found.nominal, expected.nominal), (found.variances, expected.variances)):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.data, expected.data)
    for group in GROUPS:
        np.testing.assert_array_equal(found.shifts(group.name), expected.shifts(group.name))
    assert found.metadata["complete"] is True


def test_a_result_that_lacks_events_is_refused_unless_asked_for(served: Served, client: Client) -> None:
    made = served.made
    key = made.submit()
    made.move(key, JobState.RUNNING)
    job = client.job(key)
    with pytest.raises(ConflictError, match="no snapshot yet") as none_yet:
        job.histogram("Wplusmunu")
    assert none_yet.value.code == "no-snapshot"
    made.publish(key, {"Wplusmunu": filled(5, groups=())}, groups=(), complete=False)
    for pull in (job.snapshot, job.tensor, lambda: job.histogram("Wplusmunu")):
        with pytest.raises(ConflictError, match=r"40\.0% of the events") as lacking:
            pull()
        assert lacking.value.code == "incomplete"
        assert "allow_partial=True" in (lacking.value.hint or "")
    assert job.histogram("Wplusmunu", allow_partial=True).sum().value > 0
    assert job.tensor(allow_partial=True).metadata["fraction"] == 0.4


def test_every_way_out_of_an_incomplete_result_is_refused_or_marked(
    served: Served, client: Client, tmp_path: Path
) -> None:
    job = client.job(served.made.incomplete({"Wplusmunu": filled(7, groups=())}))
    for pull in (job.snapshot, job.tensor, lambda: job.histogram("Wplusmunu")):
        with pytest.raises(ConflictError, match=r"93\.1% of the events.* 2 files") as lacking:
            pull()
        assert (lacking.value.code, "Retry the job" in str(lacking.value)) == ("incomplete", True)
    mark = "INCOMPLETE: 93.1 % of the events, and 2 files could not be opened"
    snapshot = job.snapshot(allow_partial=True)
    assert snapshot.mark == mark
    found = job.histogram("Wplusmunu", allow_partial=True)
    assert (found.metadata["complete"], found.metadata["fraction"]) == (False, 0.931)
    assert (found.metadata["job"], found.metadata["generation"]) == (job.id, 1)
    assert incomplete.mark(job.tensor(allow_partial=True).metadata) == mark
    save.pull(snapshot, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as arrays:
        assert incomplete.mark(json.loads(str(arrays["description"]))) == mark
    save.pull(snapshot, tmp_path / "h.zip")
    with zipfile.ZipFile(tmp_path / "h.zip") as archive:
        assert incomplete.mark(json.loads(archive.read("contents.json"))) == mark
        stored = uhi.io.zip.read(archive, "Wplusmunu/nominal")
        assert (stored["metadata"]["complete"], stored["metadata"]["fraction"]) == (False, 0.931)
    assert "10 events (10.0 %), 3 files or parts of files" in job._repr_html_()


def test_a_pinned_snapshot_is_not_moved_by_a_newer_one(served: Served, client: Client) -> None:
    made = served.made
    key = made.submit()
    made.move(key, JobState.RUNNING)
    first, second = filled(5, groups=()), filled(6, groups=())
    made.publish(key, {"Wplusmunu": first}, groups=(), complete=False)
    pinned = client.job(key).snapshot(allow_partial=True)
    made.publish(key, {"Wplusmunu": second}, groups=())
    assert np.array_equal(pinned.sums("Wplusmunu").values, first.histograms["nominal"].values)
    assert np.array_equal(
        client.job(key).snapshot().sums("Wplusmunu").values, second.histograms["nominal"].values
    )


@pytest.mark.parametrize(
    ("dataset", "name", "variation", "code"),
    [
        ("Wplusmumu", "nominal", None, "unknown-data-set"),
        ("Wplusmunu", "nominl", None, "unknown-histogram"),
        ("Wplusmunu", "nominal", "massShiftW11MeVUp", "unknown-variation"),
    ],
)
def test_problems_become_the_same_errors_again(
    served: Served, client: Client, dataset: str, name: str, variation: str | None, code: str
) -> None:
    with pytest.raises(RequestError) as error:
        client.job(served.job).histogram(dataset, name, variation)
    assert error.value.code == code
    assert error.value.hint
    assert (variation or name if name != "nominal" or variation else dataset) in error.value.message


def test_a_submission_that_cannot_be_names_the_thing(client: Client) -> None:
    with pytest.raises(RequestError, match="no processor named 'w_mas'") as error:
        client.submit("w_mas", ["Wplusmunu"])
    assert (error.value.code, error.value.hint) == ("unknown-processor", "Did you mean w_mass?")


def test_a_wrong_token_is_told_from_a_wrong_request(served: Served) -> None:
    with Client(served.url, "bw_wrong") as stranger, pytest.raises(RequestError) as error:
        stranger.jobs()
    assert error.value.code == "bad-token"


def test_submit_list_and_cancel(served: Served, client: Client) -> None:
    job = client.submit("w_mass", ["Wplusmunu"], corrections="small", label="mine", on_error={"skip": 0.1})
    listed = {status.id: status for status in client.jobs(limit=500)}
    assert listed[job.id].label == "mine"
    assert client.submit("w_mass", ["Wplusmunu"], idempotency_key="k1").id == (
        client.submit("w_mass", ["Wplusmunu"], idempotency_key="k1").id
    )
    assert job.cancel().state == "cancelling"
    with pytest.raises(TransientError, match=r"still cancelling after 0\.1 s"):
        job.wait(timeout=0.1)
    served.made.move(job.id, JobState.CANCELLED)
    with pytest.raises(ConflictError, match="cancelled"):
        job.wait()
    assert client.job(served.job).wait().state == "succeeded"


def test_a_failed_job_is_retried_and_a_finished_one_deleted(served: Served, client: Client) -> None:
    job = client.job(served.made.submit())
    served.made.move(job.id, JobState.RUNNING, JobState.FAILED, error={"code": "io-error", "message": "x"})
    assert job.status().retriable
    again = job.retry()
    assert (again.state, again.error, again.retriable) == ("queued", None, False)
    with pytest.raises(ConflictError, match="Cancel it first"):
        job.delete()
    with pytest.raises(ConflictError) as whole:
        client.job(served.job).retry()
    assert whole.value.code == "nothing-to-retry"
    job.cancel()
    served.made.move(job.id, JobState.CANCELLED)
    job.delete()
    with pytest.raises(RequestError) as gone:
        job.status()
    assert gone.value.code == "unknown-job"


def test_usage_is_shown_with_its_limits(served: Served, client: Client) -> None:
    found = client.usage()
    assert found["owner"] == "alice"
    assert found["active_jobs"]["limit"] == 100_000
    with pytest.raises(RequestError, match="admin"):
        client.usage("bob")


def test_a_reached_limit_keeps_its_code_and_hint(served: Served) -> None:
    answer = httpx.Response(
        429, json={"code": "too-much-cpu", "kind": "ConflictError", "detail": "d", "hint": "h"}
    )
    error = error_of(answer)
    assert isinstance(error, ConflictError)
    assert (error.code, error.hint) == ("too-much-cpu", "h")


def test_a_failed_job_raises_its_reason(served: Served, client: Client) -> None:
    key = served.made.submit()
    error = {
        "code": "missing-branch",
        "message": "There is no branch for muon pt.",
        "where": "a.root",
        "hint": "x",
    }
    served.made.move(key, JobState.RUNNING, JobState.FAILED, error=error)
    with pytest.raises(BinworksError, match=r"a\.root: There is no branch") as raised:
        client.job(key).wait()
    assert raised.value.code == "missing-branch"


def test_a_notebook_shows_jobs_with_their_text_escaped(served: Served, client: Client) -> None:
    job = client.submit("w_mass", ["Wplusmunu"], label="<b>x</b>")
    assert "queued" in job._repr_html_()
    assert "&lt;b&gt;x" in client._repr_html_()
    assert "<b>x" not in client._repr_html_()
    assert served.made.tokens["alice"] not in repr(client) + repr(client._transport.address)


def test_a_request_outlives_a_restart_of_the_service_and_is_done_once(served: Served) -> None:
    home = served.made.settings.home
    with ApiProcess(home, free_port()) as api, Client(api.url, served.made.tokens["bob"]) as client:
        before = {status.id for status in client.jobs(limit=500)}
        api.kill()
        restart = threading.Timer(0.5, api.start)
        restart.start()
        job = client.submit("w_mass", ["Wplusmunu"])
        restart.join()
        assert {status.id for status in client.jobs(limit=500)} - before == {job.id}


def test_a_service_that_is_not_there_is_named_within_seconds() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with Client(url, "x") as client, pytest.raises(TransientError, match="does not answer") as error:
        client.jobs()
    assert time.monotonic() - begin < 10
    assert (error.value.code, error.value.where) == ("cannot-connect", url)


def test_damage_on_the_way_is_found() -> None:
    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Repr-Digest", f"sha-256=:{'A' * 43}=:")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with Client(url, "x") as client, pytest.raises(TransientError) as error:
            client.processors()
        server.shutdown()
    assert error.value.code == "damaged-download"


def test_an_older_client_understands_a_newer_service(served: Served, client: Client) -> None:
    view = dict(client.job(served.job).status().raw)
    newer = {
        **view,
        "state": "dreaming",
        "colour": "blue",
        "counts": {**view["counts"], "dreams": 3},
        "missing": None,
    }
    status = Status.from_json(newer)
    assert (status.state, status.finished, status.raw["colour"]) == ("dreaming", False, "blue")


def test_a_pulled_zip_is_read_by_uhi(served: Served, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "histograms.zip"
    save.pull(client.job(served.job).snapshot(), target)
    with zipfile.ZipFile(target) as archive:
        assert json.loads(archive.read("contents.json"))["complete"] is True
        for dataset, sums in served.sums.items():
            for name, histogram in sums.histograms.items():
                found = hist.Hist(uhi.io.zip.read(archive, f"{dataset}/{name}"))
                assert np.array_equal(found.values(), histogram.values)
    assert [path.name for path in tmp_path.iterdir()] == ["histograms.zip"]


def test_a_pulled_npz_is_the_tensor(served: Served, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "tensor.npz"
    tensor = client.job(served.job).tensor()
    save.pull(client.job(served.job).snapshot(), target)
    with np.load(target, allow_pickle=False) as arrays:
        description = json.loads(str(arrays["description"]))
        assert description["processes"] == list(tensor.processes)
        assert [axis["metadata"]["name"] for axis in description["axes"]] == ["eta", "pt", "charge"]
        np.testing.assert_array_equal(arrays["nominal"], tensor.nominal)
        np.testing.assert_array_equal(arrays["data"], tensor.data)
        for group in GROUPS:
            np.testing.assert_array_equal(arrays[f"shifts/{group.name}"], tensor.shifts(group.name))
            assert len(description["nuisances"][group.name]) == len(group.expansion.nuisances)


def test_a_file_of_unknown_format_is_refused_and_an_old_one_survives_a_failure(
    served: Served, client: Client, tmp_path: Path
) -> None:
    snapshot = client.job(served.job).snapshot()
    with pytest.raises(RequestError, match=r"\.h5") as error:
        save.pull(snapshot, tmp_path / "x.h5")
    assert error.value.code == "unknown-format"
    target = tmp_path / "x.zip"
    target.write_text("old")

    def interrupt(_name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save.pull(snapshot, target, interrupt)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
