"""The Dask dashboard is reached through the API alone: by those who may submit, and no further than its own pages."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from hand_made_service import ApiProcess, HandMade, free_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from binworks.api.app import create_app
from binworks.deploy.local import LocalBackend
from binworks.service import tokens

GOES_NO_FURTHER = [
    "proxy/22/127.0.0.1/",
    "proxy/8787/127.0.0.1/dask/status",
    "api/v1/get_workers",
    "static/../proxy/22/127.0.0.1/",
    "static/%2e%2e/proxy/22/x",
    "static/..%2fproxy/22/x",
    "static/..%5cproxy",
    "statics/%00",
    "info//proxy",
    "%70roxy/22/127.0.0.1/",
    "status/../../metrics",
    "a%0d%0aHost:%20x",
    "http://127.0.0.1/",
]


class Dashboard:
    """A real scheduler with its dashboard, and an API in front of it."""

    def __init__(self, made: HandMade, api: ApiProcess, http: httpx.Client, port: int) -> None:
        self.made = made
        self.api = api
        self.http = http
        self.port = port

    def get(self, path: str, user: str = "alice", **headers: str) -> httpx.Response:
        return self.http.get(
            f"/dask/{path}", headers={"Authorization": f"Bearer {self.made.tokens[user]}", **headers}
        )

    def socket(self, page: str, headers: dict[str, str], protocols: list[str]) -> ClientConnection:
        url = f"{self.api.url.replace('http', 'ws')}/dask/{page}"
        names = [Subprotocol(name) for name in protocols]
        return connect(url, subprotocols=names, additional_headers=headers, proxy=None, compression=None)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    made = HandMade.make(tmp_path_factory.mktemp("dashboard") / "home")
    port = free_port()
    made.settings.model_copy(update={"dashboard": f"http://127.0.0.1:{port}"}).save()
    backend = LocalBackend(made.settings.home, port=free_port(), dashboard_port=port)
    backend.start()
    try:
        with (
            ApiProcess(made.settings.home, made.settings.port) as api,
            httpx.Client(base_url=api.url, timeout=30) as http,
        ):
            found = Dashboard(made, api, http, port)
            deadline = time.monotonic() + 60
            while found.get("status").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield found
            api.stop()
    finally:
        backend.close()
        made.database.close()


def cookie(made: HandMade, owner: str = "alice") -> dict[str, str]:
    secret = tokens.create(made.database, owner, ["read", "submit"], now=time.time(), kind="session")
    return {"Cookie": f"binworks_session={secret}"}


def open_page(dashboard: Dashboard, headers: dict[str, str]) -> ClientConnection:
    """Open the stream of a page as Bokeh's script does."""
    page = dashboard.http.get("/dask/status", headers=headers)
    token = re.search(r'"token":"([^"]+)"', page.text)
    assert token is not None
    return dashboard.socket("status/ws", headers, ["bokeh", token.group(1)])


def test_pages_and_what_they_need_come_through(dashboard: Dashboard) -> None:
    page = dashboard.get("status")
    assert "Dask" in page.text
    needed = re.findall(r'(?:src|href)="(/dask/static/[^"]+|statics/[^"]+)"', page.text)
    assert len(needed) > 5
    for path in needed[:6]:
        assert dashboard.get(path.removeprefix("/dask/")).status_code == 200, path
    assert "unsafe-eval" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not {"set-cookie", "server"} & set(page.headers)
    for path in ("/dask", "/dask/"):
        answer = dashboard.http.get(path, headers=cookie(dashboard.made))
        assert (answer.status_code, answer.headers["location"]) == (307, "/dask/status")
    assert dashboard.get("info/main/workers.html").status_code == 200


def test_only_those_who_may_submit_look(dashboard: Dashboard) -> None:
    assert dashboard.http.get("/dask/status").status_code == 401
    assert dashboard.get("status", "expired").status_code == 401
    assert dashboard.get("status", "reader").status_code == 403
    assert dashboard.get("status", "admin").status_code == 200
    assert dashboard.http.get("/dask/status", headers=cookie(dashboard.made)).status_code == 200


@pytest.mark.parametrize("path", GOES_NO_FURTHER)
def test_nothing_but_its_own_pages_is_reached(dashboard: Dashboard, path: str) -> None:
    plain = HTTPConnection("127.0.0.1", dashboard.made.settings.port, timeout=20)  # sends a path as it is
    headers = {"Authorization": f"Bearer {dashboard.made.tokens['admin']}"}
    plain.request("GET", f"/dask/{path}", headers=headers)
    answer = plain.getresponse()
    assert (answer.status, json.load(answer)["code"]) == (404, "not-found")
    plain.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_is_only_looked_at(dashboard: Dashboard, method: str) -> None:
    headers = {"Authorization": f"Bearer {dashboard.made.tokens['admin']}"}
    assert dashboard.http.request(method, "/dask/status", headers=headers).status_code == 405


def test_the_stream_of_a_page_works_as_in_a_browser(dashboard: Dashboard) -> None:
    headers = {**cookie(dashboard.made), "Origin": dashboard.api.url}
    with open_page(dashboard, headers) as socket:
        assert socket.subprotocol == "bokeh"
        header, _, _ = (socket.recv(20) for _ in range(3))
        assert json.loads(header)["msgtype"] == "ACK"
        asked = {"msgid": "1", "msgtype": "PULL-DOC-REQ"}
        for part in (json.dumps(asked), "{}", "{}"):
            socket.send(part)
        while json.loads(socket.recv(20)).get("msgtype") != "PULL-DOC-REPLY":
            pass


@pytest.mark.parametrize(
    ("user", "origin"),
    [
        (None, None),
        ("reader", None),
        ("cookie", None),
        ("cookie", "http://evil.example.org"),
        ("cookie", "null"),
    ],
)
def test_a_stream_is_refused_to_others_and_to_other_sites(
    dashboard: Dashboard, user: str | None, origin: str | None
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    if user == "cookie":
        headers |= cookie(dashboard.made)
    elif user is not None:
        headers["Authorization"] = f"Bearer {dashboard.made.tokens[user]}"
    with pytest.raises(InvalidStatus) as refused:
        dashboard.socket("status/ws", headers, ["bokeh", "x"])
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("page", ["eventstream", "proxy/ws", "status%2f..%2fproxy/ws", "proxy/1/ws"])
def test_no_other_stream_is_reached(dashboard: Dashboard, page: str) -> None:
    headers = {"Authorization": f"Bearer {dashboard.made.tokens['admin']}"}
    with pytest.raises(InvalidStatus):
        dashboard.socket(page, headers, ["bokeh", "x"])


def test_a_stream_ends_when_its_session_does(dashboard: Dashboard) -> None:
    headers = {**cookie(dashboard.made), "Origin": dashboard.api.url}
    with open_page(dashboard, headers) as socket:
        socket.recv(20)
        tokens.revoke_secret(dashboard.made.database, headers["Cookie"].split("=", 1)[1])
        assert all(isinstance(message, str | bytes) for message in socket)  # until it is closed
        assert socket.close_code == 1001


def test_the_dashboard_gets_no_cookie_and_no_token(tmp_path: Path) -> None:
    seen: list[str] = []

    class Spy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.path}\n{self.headers}".lower())
            self.send_response(200)
            self.send_header("Set-Cookie", "binworks_session=planted")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Spy)
    Thread(target=server.serve_forever, daemon=True).start()
    made = HandMade.make(tmp_path / "home")
    settings = made.settings.model_copy(update={"dashboard": f"http://127.0.0.1:{server.server_port}"})
    headers = {"Authorization": f"Bearer {made.tokens['alice']}", "X-Forwarded-For": "1.2.3.4"}

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        app = create_app(settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=settings.url, headers=headers) as http,
        ):
            there = await http.get("/dask/status?a=b", headers={**cookie(made), "Accept": "text/html"})
            server.shutdown()
            server.server_close()
            return there, await http.get("/dask/status")

    there, away = asyncio.run(ask())
    made.database.close()
    assert there.status_code == 200
    assert "set-cookie" not in there.headers
    assert (away.status_code, away.json()["code"]) == (503, "no-dashboard")
    assert seen[0].startswith("/dask/status?a=b")
    assert not re.search(r"bw_|bws_|cookie|authorization|forwarded", "".join(seen))
