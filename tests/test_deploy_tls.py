"""Certificates, and what they are for: a stranger cannot run code on the cluster, or learn anything of it."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from backend_contract import reach
from distributed import Client, Security
from parted_service import Parts, parts, rightful, security
from typer.testing import CliRunner
from worker_surroundings import surroundings

from binworks.api.checks import Checks
from binworks.client import cli
from binworks.deploy import authority
from binworks.deploy.tls import ROLES, Certificates, Role
from binworks.service.cluster import Cluster
from binworks.service.database import Database
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.up import choose_port
from binworks.tensors.errors import RequestError

DAY = timedelta(days=1)
REACHED, LOOPBACK = "127.0.0.2", "127.0.0.1"
"""The cluster's own address, as others would reach it; and what this machine alone reaches."""
SECRETS = {
    "BINWORKS_TOKEN": "bw_secret1",
    "PGPASSWORD": "secret2",
    "AWS_SECRET_ACCESS_KEY": "secret3",
    "DATABASE_URL": "postgresql://binworks:secret4@db.example.org/binworks",
}


# files


def test_each_role_has_its_files_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "deep" / "tls")
    files = {path for path in made.folder.rglob("*") if path.is_file()}
    assert {path.relative_to(made.folder).as_posix() for path in made.folder.glob("ca/*")} == {
        "ca/ca.crt",
        "ca/ca.key",
    }
    for role in ROLES:
        assert {path.name for path in (made.folder / role).iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    folders = [made.folder, *(path.parent for path in files)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert [shown.fault for shown in made.shown()] == [None] * 4
    assert [path.name for path in made.folder.parent.iterdir()] == ["tls"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls")
    before = made.shown()
    with pytest.raises(RequestError) as caught:
        Certificates.make(tmp_path / "tls")
    assert caught.value.code == "certificates-exist"
    assert made.shown() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(RequestError, match="something here already"):
        Certificates.make(tmp_path / "mine")
    again = Certificates.make(tmp_path / "tls", replace=True)
    assert not {shown.fingerprint for shown in again.shown()} & {shown.fingerprint for shown in before}
    assert {path.name for path in tmp_path.iterdir()} == {"tls", "mine"}


@pytest.mark.parametrize("make", [Certificates.make, Certificates.ensure])
def test_of_two_at_once_one_makes_all(tmp_path: Path, make: Any) -> None:
    def attempt(_: int) -> str:
        try:
            make(tmp_path / "tls")
        except RequestError as error:
            return error.code
        return "made"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    expected = ["made"] * 8 if make == Certificates.ensure else [*["certificates-exist"] * 7, "made"]
    assert outcomes == expected
    assert [shown.fault for shown in Certificates(tmp_path / "tls").shown()] == [None] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["tls"]


def test_what_ends_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = authority.make_role

    def full(*arguments: Any) -> Any:
        if arguments[1] == "client":
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(authority, "make_role", full)
        with pytest.raises(RequestError, match="No space left") as caught:
            Certificates.make(tmp_path / "tls")
    assert caught.value.code == "certificates-not-writable"
    assert list(tmp_path.iterdir()) == []
    made = Certificates.make(tmp_path / "tls")
    before = made.shown()
    monkeypatch.setattr(authority, "make_role", full)
    with pytest.raises(RequestError, match="No space left"):
        made.renew()
    assert made.shown() == before


def test_a_renewal_keeps_the_authority_and_changes_the_keys(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls", days=10)
    before, keys = made.shown(), [made.key(role).read_bytes() for role in ROLES]
    made.renew(days=20)
    after = made.shown()
    assert after[0] == before[0]
    for old, new in zip(before[1:], after[1:], strict=True):
        assert new.expires - old.expires > 9 * DAY
        assert new.fault is None
    assert not set(keys) & {made.key(role).read_bytes() for role in ROLES}
    assert {path.name for path in made.folder.iterdir() if path.is_dir() and not path.is_symlink()} == {
        "ca",
        *(str((made.folder / role).readlink()) for role in ROLES),
    }


def test_a_copied_folder_can_be_renewed(tmp_path: Path) -> None:
    Certificates.make(tmp_path / "tls")
    shutil.copytree(tmp_path / "tls", tmp_path / "copy")  # links become folders
    copy = Certificates(tmp_path / "copy")
    before = copy.shown()
    copy.renew()
    assert {shown.fault for shown in copy.shown()} == {None}
    assert copy.shown() != before


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls", now=datetime.now(UTC) - 3640 * DAY)
    made.renew()
    assert set(made.expires().values()) == {made.expires()["ca"]}


def test_only_who_has_the_authority_renews(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls", days=10)
    shutil.move(made.folder / "ca", tmp_path / "safe")
    with pytest.raises(RequestError) as caught:
        made.renew()
    assert caught.value.code == "no-authority"
    before = made.shown()
    assert Certificates.ensure(made.folder).shown() == before  # somebody else's to renew
    shutil.move(tmp_path / "safe", made.folder / "ca")
    assert Certificates.ensure(made.folder).expires()["worker"] > before[1].expires + 30 * DAY
    before = made.shown()
    assert Certificates.ensure(made.folder).shown() == before


def test_a_part_needs_its_own_folder_only(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls")
    mounted = Certificates(tmp_path / "secret")
    shutil.copytree(made.folder / "worker", mounted.folder / "worker")
    assert mounted.roles() == ("worker",)
    assert [shown.name for shown in mounted.shown()] == ["ca", "worker"]
    files = [mounted.folder / "worker" / name for name in ("ca.crt", "tls.crt", "tls.key")]
    assert mounted.flags("worker")[1::2] == [str(path) for path in files]


def test_the_dates_can_be_read_without_a_key(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls")
    before = made.expires()
    for role in ROLES:
        made.key(role).unlink()
    shutil.rmtree(made.folder / "ca")
    assert made.expires() == before
    assert set(before) == {"ca", *ROLES}


def test_a_service_does_not_start_with_what_nobody_could_use(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls")
    made.renew(days=10, now=datetime.now(UTC) - 20 * DAY)
    shutil.move(made.folder / "ca", tmp_path / "safe")
    with pytest.raises(RequestError, match="worker: it has expired") as caught:
        Certificates.ensure(made.folder)
    assert caught.value.code == "bad-certificate"
    shutil.move(tmp_path / "safe", made.folder / "ca")
    Certificates.ensure(made.folder)
    (made.folder / "scheduler").unlink()
    with pytest.raises(RequestError, match="none of the scheduler"):
        Certificates.ensure(made.folder)
    old = Certificates.make(tmp_path / "old", now=datetime.now(UTC) - 4000 * DAY)
    with pytest.raises(RequestError, match=r"the authority has expired.*init --replace"):
        Certificates.ensure(old.folder)


def test_what_does_not_fit_together_is_said(tmp_path: Path) -> None:
    made, other = Certificates.make(tmp_path / "tls"), Certificates.make(tmp_path / "other")
    shutil.copy(other.key("worker"), made.key("worker"))
    shutil.copy(other.ca("client"), made.ca("client"))
    faults = {shown.name: shown.fault or "" for shown in made.shown()}
    assert "key" in faults["worker"]
    assert "not signed" in faults["client"]
    assert faults["scheduler"] == ""
    made.cert("worker").write_text("no PEM")
    with pytest.raises(RequestError) as caught:
        made.shown()
    assert caught.value.code == "bad-certificate"
    with pytest.raises(RequestError) as caught:
        Certificates(tmp_path / "nowhere").expires()
    assert caught.value.code == "no-certificates"


# the command


def run(*words: object) -> tuple[int, str]:
    """Return the exit code of ``binworks tls`` and what it prints."""
    spelt = ["tls", *map(str, words)]
    done = CliRunner().invoke(cli.build(spelt), spelt)
    return done.exit_code, str(done.exception) if isinstance(done.exception, RequestError) else done.stdout


def test_the_command_makes_renews_and_shows(tmp_path: Path) -> None:
    assert run("init", "--home", tmp_path)[0] == 0
    assert (tmp_path / "tls" / "worker" / "tls.crt").exists()
    code, printed = run("show", "--home", tmp_path, "--json")
    shown = json.loads(printed)
    assert code == 0
    assert [one["name"] for one in shown["certificates"]] == ["ca", "scheduler", "worker", "client"]
    assert [one["trouble"] for one in shown["certificates"]] == [None] * 4
    assert datetime.fromisoformat(shown["certificates"][1]["expires"]) - datetime.now(UTC) > 364 * DAY
    assert run("renew", "--home", tmp_path, "--days", 20)[0] == 0
    code, printed = run("show", "--home", tmp_path)
    assert code == 1
    assert "it expires in 19 days" in printed
    assert run("show", "--home", tmp_path, "--days", 10)[0] == 0
    assert "init --replace" in run("init", "--home", tmp_path)[1]
    assert run("init", "--out", tmp_path / "elsewhere")[0] == 0
    assert "--home or --out" in run("show")[1]
    Settings(home=tmp_path, tls=tmp_path / "elsewhere").save()
    assert str(tmp_path / "elsewhere") in run("show", "--home", tmp_path, "--json")[1]


def test_the_command_says_what_has_expired(tmp_path: Path) -> None:
    made = Certificates.make(tmp_path / "tls")
    made.renew(days=10, now=datetime.now(UTC) - 20 * DAY)
    code, printed = run("show", "--out", made.folder, "--days", 0)
    assert code == 1
    assert printed.count("it has expired") == 3


# who gets on with whom, by the contexts that Dask itself makes


@dataclass(frozen=True)
class Issued:
    """Ours, and those of strangers."""

    ours: Certificates
    renewed: Certificates
    expired: Certificates
    others: Certificates


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    folder = tmp_path_factory.mktemp("issued")
    ours = Certificates.make(folder / "ours")
    copies = []
    for name in ("renewed", "expired"):
        shutil.copytree(ours.folder, folder / name, symlinks=True)
        copies.append(Certificates(folder / name))
    renewed, expired = copies
    renewed.renew()
    expired.renew(days=10, now=datetime.now(UTC) - 20 * DAY)
    return Issued(ours, renewed, expired, Certificates.make(folder / "others"))


def accepting(certificates: Certificates, role: Role) -> ssl.SSLContext:
    made = security(certificates, role).get_listen_args(role)["ssl_context"]
    assert isinstance(made, ssl.SSLContext)
    return made


def connecting(certificates: Certificates, role: Role) -> ssl.SSLContext:
    made = security(certificates, role).get_connection_args(role)["ssl_context"]
    assert isinstance(made, ssl.SSLContext)
    return made


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Let two ends speak, without a network."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(back, there)
    far = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in (near, far):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    far.write(b"x")
    assert near.read(1) == b"x"


@pytest.mark.parametrize("server", ["scheduler", "worker"])
@pytest.mark.parametrize("client", ROLES)
def test_all_parts_get_on_with_what_listens_before_and_after_a_renewal(
    issued: Issued, server: Role, client: Role
) -> None:
    for near in (issued.ours, issued.renewed):
        for far in (issued.ours, issued.renewed):
            shake(accepting(far, server), connecting(near, client))


@pytest.mark.parametrize("client", ROLES)
def test_strangers_do_not_get_on(issued: Issued, client: Role) -> None:
    for near in (issued.others, issued.expired):
        with pytest.raises(ssl.SSLError):
            shake(accepting(issued.ours, "scheduler"), connecting(near, client))
        with pytest.raises(ssl.SSLError):
            shake(accepting(near, "scheduler"), connecting(issued.ours, client))


def test_the_certificate_of_the_driver_cannot_stand_for_a_scheduler(issued: Issued) -> None:
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        shake(accepting(issued.ours, "client"), connecting(issued.ours, "worker"))


# a real cluster, and strangers on its network


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, issued: Issued) -> Iterator[Parts]:
    """Run a scheduler and a worker host, started by somebody with secrets in a folder with a corrections.py."""
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "corrections.py").write_text("raise SystemExit('not mine')\n")
    ports = {"port": choose_port(REACHED, 0), "dashboard_port": choose_port(LOOPBACK, 0)}
    with (
        pytest.MonkeyPatch.context() as patched,
        parts(tmp_path_factory.mktemp("home"), issued.ours, host=REACHED, **ports) as made,
    ):
        for name, value in SECRETS.items():
            patched.setenv(name, value)
        patched.setenv("BINWORKS_TEST_KEPT", "this")
        patched.setenv("PYTHONPATH", str(Path(__file__).parent))  # for `surroundings`, by name
        patched.chdir(folder)
        made.scheduler()
        made.worker("ours", "--keep", "BINWORKS_TEST_KEPT", host=REACHED)
        with rightful(made.address, issued.ours) as client:
            client.wait_for_workers(1, timeout=60)
        yield made


@pytest.fixture
def client(cluster: Parts) -> Iterator[Client]:
    with rightful(cluster.address, cluster.certificates) as made:
        yield made


def family(cluster: Parts) -> list[psutil.Process]:
    heads = [psutil.Process(keeper.pid) for keeper in cluster.keepers]
    return [process for head in heads for process in (head, *head.children(recursive=True))]


def listening(cluster: Parts) -> set[tuple[str, int]]:
    """Return where the cluster's processes listen."""
    found = [c for process in family(cluster) for c in process.net_connections("inet")]
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}


def told(place: tuple[str, int], context: ssl.SSLContext | None) -> bytes:
    """Return what is told to somebody who connects, and says nothing sensible."""
    with socket.create_connection(place, 5) as plain:
        line = plain if context is None else context.wrap_socket(plain)
        with closing(line):
            line.settimeout(5)
            line.sendall(b"\0" * 64)
            return line.recv(1000)


def without_certificate() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


@pytest.mark.faults
def test_whatever_others_reach_wants_a_certificate(cluster: Parts, issued: Issued) -> None:
    places = listening(cluster)
    assert {host for host, _ in places} == {REACHED, LOOPBACK}
    reached = sorted(place for place in places if place[0] == REACHED)
    assert len(reached) == 3  # scheduler, nanny, worker
    strangers = [
        without_certificate(),
        connecting(issued.others, "client"),
        connecting(issued.expired, "client"),
    ]
    for context in strangers[1:]:
        context.verify_mode = ssl.CERT_NONE  # a stranger does not mind whom he meets
    for place in reached:
        assert told(place, connecting(issued.ours, "client")) != b""
        for context in strangers:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                told(place, context)
        with suppress(ConnectionResetError):
            alert = told(place, None)
            assert alert == b"" or (alert[0] == 0x15 and len(alert) == 7)


@pytest.mark.faults
def test_what_tells_more_is_on_the_loopback_alone(cluster: Parts) -> None:
    dashboard = (LOOPBACK, cluster.dashboard_port)
    assert dashboard in listening(cluster)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((REACHED, cluster.dashboard_port), 5)


@pytest.mark.faults
@pytest.mark.parametrize("who", ["plain", "others", "expired"])
def test_a_stranger_cannot_submit_code(cluster: Parts, issued: Issued, who: str) -> None:
    address = cluster.address.replace("tls:", "tcp:") if who == "plain" else cluster.address
    shown: Security | None = None if who == "plain" else security(getattr(issued, who))
    with pytest.raises(OSError):
        Client(address, security=shown, timeout=2, set_as_default=False)


@pytest.mark.faults
def test_a_strange_worker_cannot_join(cluster: Parts, issued: Issued, client: Client) -> None:
    def start(name: str, certificates: Certificates | None, address: str) -> subprocess.Popen[bytes]:
        flags = [] if certificates is None else certificates.flags("worker")
        words = [address, "--nworkers", "1", "--no-nanny", "--death-timeout", "3", "--host", REACHED, *flags]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", *words, "--name", name]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    strangers = [
        start("plain", None, cluster.address.replace("tls:", "tcp:")),
        start("bare", None, cluster.address),
        start("others", issued.others, cluster.address),
        start("expired", issued.expired, cluster.address),
    ]
    try:
        assert all(stranger.wait(60) != 0 for stranger in strangers)
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()
    assert [worker["name"] for worker in client.scheduler_info()["workers"].values()] == ["ours"]
    assert cluster.log("scheduler").count("Register worker") == 1
    assert cluster.log("scheduler").count("TLS handshake failed") >= 2


def test_a_driver_that_would_never_connect_says_so(tmp_path: Path) -> None:
    for address, tls in (("tcp://10.0.0.1:8786", tmp_path), ("tls://10.0.0.1:8786", None)):
        with pytest.raises(RequestError) as caught:
            Cluster(address, tls)
        assert caught.value.code == "tls-differs"


# what expires and is renewed


def expired_copy(issued: Issued, folder: Path) -> Certificates:
    shutil.copytree(issued.expired.folder, folder, symlinks=True)
    return Certificates(folder)


@pytest.mark.faults
def test_a_driver_whose_certificate_has_expired_comes_in_once_it_is_renewed(
    cluster: Parts, issued: Issued, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = expired_copy(issued, tmp_path / "tls")

    async def drive() -> None:
        async with Cluster(cluster.address, mine.folder).connected() as connected:
            await until(lambda: "expired" in caplog.text)
            assert connected.threads == 0
            (mine.folder / "client").rename(tmp_path / "away")
            await until(lambda: f"{mine.folder}/client" in caplog.text)
            mine.renew()
            await until(lambda: connected.threads == 1)

    async def until(reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not reached():
                await asyncio.sleep(0.1)

    with caplog.at_level(logging.INFO, "binworks.service.cluster"):
        asyncio.run(drive())


@pytest.mark.faults
def test_a_worker_whose_certificate_has_expired_joins_once_it_is_renewed(
    cluster: Parts, issued: Issued, client: Client, tmp_path: Path
) -> None:
    mine = expired_copy(issued, tmp_path / "tls")
    late = cluster.worker("late", host=REACHED, certificates=mine)
    try:
        reach(lambda: "expired" in cluster.log("late") or late.restarts, 60)
        mine.renew()
        reach(lambda: len(client.scheduler_info()["workers"]) == 2, 60)
    finally:
        cluster.keepers.remove(late)
        late.stop()
    reach(lambda: len(client.scheduler_info()["workers"]) == 1, 60)


# what a unit's code sees


@pytest.mark.faults
def test_secrets_of_whoever_starts_a_worker_do_not_reach_its_units(client: Client) -> None:
    found = client.submit(surroundings).result(timeout=60)
    seen = json.dumps(found)
    assert [name for name, value in SECRETS.items() if name in seen or value in seen] == []
    assert found["environment"]["BINWORKS_TEST_KEPT"] == "this"
    assert found["environment"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.faults
def test_a_module_in_the_folder_of_the_start_is_not_imported(client: Client) -> None:
    found = client.submit(surroundings, pure=False).result(timeout=60)
    assert Path(found["here"], "corrections.py").exists()
    assert not found["corrections"]
    assert found["safe"]


# the service's own look at the scheduler


@pytest.mark.faults
def test_the_service_sees_the_scheduler_without_troubling_it(cluster: Parts, tmp_path: Path) -> None:
    dashboard = f"http://{LOOPBACK}:{cluster.dashboard_port}"
    settings = Settings(home=tmp_path, scheduler=cluster.address, dashboard=dashboard)
    database = Database(settings.database_url)
    try:
        before = cluster.log("scheduler")
        assert Checks(settings, database, Store.open(settings.store_url)).failed(["scheduler"]) == {}
        assert cluster.log("scheduler") == before
        nobody = choose_port(LOOPBACK, 0)
        gone = settings.model_copy(update={"dashboard": f"http://{LOOPBACK}:{nobody}"})
        failed = Checks(gone, database, Store.open(settings.store_url)).failed(["scheduler"])
        assert failed["scheduler"].code == "no-scheduler"
    finally:
        database.close()
