"""Files on servers are read with the login of the job's owner, and nobody sees his credential; all of it real."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grid_identities
import httpx
import pytest
import service_toys
import xrootd_server
from distributed import Client
from grid_identities import Authority, Issuer
from service_toys import Running, serial
from xrootd_server import Server

from binworks.processors.sources import open_source
from binworks.service import credentials
from binworks.service.model import JobRequest, JobState, JobView
from binworks.service.requests import resolve
from binworks.tensors.errors import RequestError, TransientError

pytestmark = pytest.mark.faults
needs_tokens = pytest.mark.skipif(
    not list(Path("/usr").glob("lib*/**/libXrdAccSciTokens-5.so")),
    reason="the server cannot check tokens: apt-get install xrootd-scitokens-plugins",
)
CAROL = "oidc:carol"
DASHBOARD = (
    "status",
    "tasks",
    "info/main/workers.html",
    "info/logs.html",
    "json/counts.json",
    "individual-profile",
)


@dataclass
class Guarded:
    """A service with credentials, one worker, and a server where alice and carol may read and bob may not."""

    running: Running
    server: Server
    authority: Authority
    issuer: Issuer
    folder: Path
    secrets: list[bytes] = field(default_factory=list)

    def give(self, owner: str, user: str, **kind: Any) -> Path:
        """Give the service an owner's proxy, of a user of the grid."""
        path = self.folder / f"{credentials.file_name(owner)}.proxy"
        self.authority.proxy(user, path, **kind)
        lines = path.read_bytes().splitlines()
        self.secrets += [path.name.encode(), *(line for line in lines if len(line) == 64)]
        return path

    def give_token(self, owner: str, scope: str, **kind: Any) -> Path:
        """Give the service an owner's token, which lets him read below a path."""
        path = self.folder / f"{credentials.file_name(owner)}.token"
        token = self.issuer.token(owner, path, scope, **kind)
        self.secrets += [path.name.encode(), *token.encode().split(b".")[1:]]
        return path

    def logins(self, user: str) -> int:
        """Return how often the server let a user in."""
        return (self.server.folder / "log").read_text().count(f"login as {user}\n")

    def submit(self, owner: str, name: str, **options: Any) -> str:
        """Submit a job of an owner on a file of the server."""
        dataset = {"name": "D", "files": [self.server.url(name)]}
        asked = JobRequest.model_validate({"processor": "toy", "options": options, "datasets": [dataset]})
        return self.running.jobs.create(resolve(asked, self.running.settings), owner)[0].id

    def sound(self, job: str, path: Path) -> JobView:
        """Wait for a job; it has the bits of the file on the disk."""
        view = self.running.wait(job)
        assert view.state == JobState.SUCCEEDED, view.error
        _, resolved = self.running.service_ledger().load(job)
        local = resolved.datasets[0].model_copy(update={"files": (str(path),)})
        assert self.running.digests(job) == {"D": serial(self.folder.parent / job, local, resolved)}
        return view

    def refused(self, job: str) -> tuple[str, str]:
        """Wait for a job that fails; return the error's code and what it is about."""
        view = self.running.wait(job)
        assert view.state == JobState.FAILED
        assert view.error is not None
        assert view.error.hint or view.error.code == "unreadable-file"
        return view.error.code, str(view.error.where)

    def leaks(self, seen: bytes) -> list[bytes]:
        return [secret for secret in self.secrets if secret in seen]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    reason = xrootd_server.why_not()
    if reason is not None:
        pytest.skip(f"no XRootD server can be started: {reason}")
    home = tmp_path_factory.mktemp("service")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        grid = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binworks-grid-")))
        grid.chmod(0o755)
        authority, issuer = Authority(grid / "certificates"), Issuer(grid)
        patch.setenv("X509_CERT_DIR", str(authority.folder))
        certificate, key = authority.host(grid)
        (grid / "users").write_text("".join(f'"/CN={user}" {user}\n' for user in ("alice", "bob", "carol")))
        (grid / "rights").write_text("u alice /data lr\nu carol /data lr\nu bob /data/open lr\n")
        for path in (grid, *grid.rglob("*")):
            shutil.chown(path, "xrootd")
        login = f"-certdir:{authority.folder} -cert:{certificate} -key:{key} -crl:0 -gridmap:{grid}/users -gmapopt:2"
        settings = ["xrootd.seclib libXrdSec.so", f"sec.protocol gsi {login}"]
        settings += ["ofs.authorize 1", f"acc.authdb {grid}/rights"]
        if not needs_tokens.args[0]:
            settings += [f"xrd.tls {certificate} {key}", f"xrd.tlsca certfile {authority.certificate}"]
            settings += ["xrootd.tls all", "sec.protocol ztn"]
            settings += [f"ofs.authlib ++ libXrdAccSciTokens.so config={issuer.settings}"]
        environment = {"XDG_CACHE_HOME": str(issuer.cache)}
        server = stack.enter_context(
            xrootd_server.serving(host="localhost", settings=settings, environment=environment)
        )
        stack.enter_context(server.inside())
        stack.enter_context(service_toys.registered(home / "toys"))
        folder = home / "credentials"
        folder.mkdir(mode=0o700)
        places: dict[str, Any] = {"data_roots": (server.url("").rstrip("/"),), "credentials": folder}
        running = stack.enter_context(service_toys.service(home / "home", workers=1, **places))
        yield Guarded(running, server, authority, issuer, folder)


URL = "root://server//data/f.root"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(credentials.FOLDER, str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", credentials.CHOICE, *credentials.TOKENS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def give(path: Path, text: str = "secret") -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def test_an_owner_s_name_leads_to_no_other_folder_and_to_no_other_connection(folder: Path) -> None:
    (folder / "in").mkdir()
    give(folder / "in" / "x.token")
    for owner in ("in/x", "../x", ".", "%2e%2e%2fx", "in%2Fx"):
        assert "/" not in credentials.file_name(owner)
        with pytest.raises(RequestError, match="no credential"):
            credentials.login(owner, URL)
    names = set()
    for owner in ("jane", "oidc:jane", "oidc:jane@x", "oidc%3Ajane"):
        give(folder / f"{credentials.file_name(owner)}.token", owner)
        login = credentials.login(owner, URL)
        assert login is not None
        assert login.name.isalnum()
        assert "/" not in repr(login)
        names.add(login.name)
        assert login.address(URL).startswith(f"root://{login.name}@server//data/f.root?xrd.wantprot=ztn&")
        assert login.address("root://other@server//f").startswith(f"root://{login.name}@server//f?")
    assert len(names) == 4
    assert credentials.login("nobody", "/data/f.root") is None
    assert credentials.login(None, URL) is None


@pytest.mark.parametrize("name", [*credentials.TOKENS, credentials.CHOICE])
def test_a_login_of_the_workers_account_does_not_take_the_place_of_a_token(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(folder / "jane.token")
    assert credentials.login("jane", URL) is not None
    monkeypatch.setenv(name, "gsi,unix")
    with pytest.raises(RequestError) as refused:
        credentials.login("jane", URL)
    assert refused.value.code == "credential-shadowed"
    assert name in refused.value.message


def test_a_worker_that_was_not_told_the_folder_reads_nothing_with_its_own_login(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "credentials", f"{folder}&xrd.wantprot=unix"):
        monkeypatch.setenv(credentials.FOLDER, value)
        with pytest.raises(RequestError) as refused:
            credentials.login("jane", URL)
        assert refused.value.code == "credential-missing"
    monkeypatch.setenv(credentials.FOLDER, f"{folder}/not-mounted")
    with pytest.raises(TransientError, match="does not see"):  # another machine may
        credentials.login("jane", URL)


@pytest.mark.parametrize(
    "parameters", ["xrd.gsiusrpxy=/tmp/x509up_u0", "a=b&xrd.ztn=/x", "XRD.ztn=/x", "authz=Bearer%20x"]
)
def test_an_address_does_not_choose_a_credential(parameters: str) -> None:
    with pytest.raises(RequestError) as refused:
        open_source(f"{URL}?{parameters}")
    assert refused.value.code == "bad-address"
    assert "x509up" not in str(refused.value)


def test_an_owner_reads_what_he_may_and_no_other_by_the_way(guarded: Guarded) -> None:
    path = service_toys.write(guarded.server.data / "secret.root", 2000)
    for owner, user in (("alice", "alice"), ("bob", "bob"), (CAROL, "carol")):
        guarded.give(owner, user)
    first = guarded.submit("alice", "secret.root")
    guarded.sound(first, path)
    # on the same worker, with alice's connection open, her index known and her partials stored
    assert guarded.refused(guarded.submit("bob", "secret.root")) == (
        "unreadable-file",
        guarded.server.url("secret.root"),
    )
    (guarded.server.data / "open").mkdir(exist_ok=True)
    shutil.copy(path, guarded.server.data / "open")
    guarded.sound(guarded.submit("bob", "open/secret.root"), path)
    shared = guarded.submit(CAROL, "secret.root")
    guarded.sound(shared, path)
    assert all(unit.reused for unit in guarded.running.units(shared))
    assert all(guarded.logins(user) for user in ("alice", "bob", "carol"))


def test_an_open_file_serves_its_login_only(guarded: Guarded) -> None:
    service_toys.write(guarded.server.data / "apart.root", 1000)
    proxies = [str(guarded.give(owner, owner)) for owner in ("alice", "bob")]
    code = f"""
import json
from binworks.processors import reading
from binworks.processors.columns import Field
from binworks.processors.sources import Login
from binworks.tensors.errors import InputError
url, wanted = {guarded.server.url("apart.root")!r}, (Field("x", ("x",), "f8"),)
alice, bob = (Login(f"user{{i}}", proxy) for i, proxy in enumerate({proxies}))
uuid = reading.inspect(url, None, alice).uuid
reading.read(url, uuid, wanted, 0, 500, alice)
try:
    reading.read(url, uuid, wanted, 500, 1000, bob)
except InputError as error:
    print(json.dumps([error.code, str(error)]))
"""
    refused, told = guarded.server.run(code, streamerrorwindow=0)
    assert refused == "unreadable-file"
    assert guarded.leaks(told.encode()) == []


@needs_tokens
def test_a_token_is_its_owners_alone_and_a_renewed_one_is_taken(guarded: Guarded) -> None:
    path = service_toys.write(guarded.server.data / "tokens.root", 2000, first=70_000)
    guarded.give_token("tina", "/")
    guarded.give_token("tom", "/open")
    guarded.sound(guarded.submit("tina", "tokens.root"), path)
    assert guarded.refused(guarded.submit("tom", "tokens.root"))[0] == "unreadable-file"
    assert guarded.logins("tina") == 1
    guarded.sound(guarded.submit("tina", "tokens.root"), path)
    assert guarded.logins("tina") == 1
    guarded.give_token("tina", "/")
    guarded.sound(guarded.submit("tina", "tokens.root"), path)
    assert guarded.logins("tina") == 2  # the old connection would be refused when the old token has expired
    guarded.give_token("tina", "/", valid=-grid_identities.HOUR)
    assert guarded.refused(guarded.submit("tina", "tokens.root")) == ("credential-expired", "tina")


def test_a_credential_that_is_not_there_or_not_good_fails_the_job_and_a_retry_takes_a_new_one(
    guarded: Guarded,
) -> None:
    path = service_toys.write(guarded.server.data / "own.root", 1000, first=5000)
    guarded.give("erin", "alice", valid=-grid_identities.HOUR)
    guarded.give("frank", "alice").chmod(0o644)
    guarded.give("grace", "nobody")
    (guarded.folder / "heidi.proxy").write_text("this is none")
    (guarded.folder / "heidi.proxy").chmod(0o600)
    expected = {
        "dave": "credential-missing",
        "erin": "credential-expired",
        "frank": "credential-unusable",
        "heidi": "credential-unusable",
    }
    jobs = {owner: guarded.submit(owner, "own.root") for owner in expected}
    stranger = guarded.submit("grace", "own.root")
    assert {owner: guarded.refused(job) for owner, job in jobs.items()} == {
        owner: (code, owner) for owner, code in expected.items()
    }
    assert guarded.refused(stranger) == ("login-refused", guarded.server.url("own.root"))

    guarded.give("erin", "alice")
    guarded.running.jobs.retry(jobs["erin"])
    guarded.sound(jobs["erin"], path)


def test_nobody_sees_a_credential(guarded: Guarded) -> None:
    path = guarded.give("alice", "alice")
    assert guarded.leaks(path.read_bytes())
    guarded.give("bob", "bob")
    service_toys.write(guarded.server.data / "long.root", 3000, first=9000)
    job = guarded.submit("alice", "long.root", pause=0.5)
    guarded.running.until(job, lambda view: view.counts.units.running)
    settings = guarded.running.settings
    with Client(settings.scheduler, set_as_default=False) as client:
        graph = client.run_on_scheduler(_graph)
    assert any(b"alice" in task for task in graph)
    bearer = (settings.home / "token").read_text().strip()
    seen = {"graph": b"".join(graph), "processes": b"".join(map(_command, Path("/proc").glob("[0-9]*")))}
    seen |= {name: httpx.get(f"{settings.dashboard}/{name}").content for name in DASHBOARD}
    assert guarded.running.wait(job).state == JobState.SUCCEEDED
    failed = guarded.submit("bob", "long.root")
    assert guarded.refused(failed)[0] == "unreadable-file"
    with httpx.Client(base_url=settings.url, headers={"Authorization": f"Bearer {bearer}"}) as http:
        jobs = [entry["id"] for entry in http.get("/v1/jobs").raise_for_status().json()["jobs"]]
        assert {job, failed} <= set(jobs)
        for each in jobs:
            for part in ("", "/units"):
                seen[each + part] = http.get(f"/v1/jobs/{each}{part}").raise_for_status().content
    events = [event.model_dump_json() for each in jobs for event in guarded.running.jobs.events(each)]
    seen["events"] = "".join(events).encode()
    for file in settings.home.rglob("*"):
        if file.is_file():
            seen[str(file)] = file.read_bytes()
    assert any("worker" in Path(name).name for name in seen)
    assert {name: found for name, text in seen.items() if (found := guarded.leaks(text))} == {}


def _graph(dask_scheduler: Any) -> list[bytes]:
    return [pickle.dumps(task.run_spec) for task in dask_scheduler.tasks.values()]


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
