"""The page of the REST interface needs nothing from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import browser, executable
from hand_made_service import Served

pytest_plugins = ["served_fixture"]


@pytest.mark.skipif(executable() is None, reason="not installed: Chromium (apt-get install chromium)")
def test_the_schema_can_be_read_without_any_other_server(served: Served, tmp_path: Path) -> None:
    with browser(tmp_path) as running, running.tab() as tab:
        tab.goto(f"{served.url}/docs")
        tab.until("document.querySelectorAll('.opblock').length > 20")
        loaded = "JSON.stringify(performance.getEntriesByType('resource').map(r => new URL(r.name).origin))"
        assert set(json.loads(tab.js(loaded))) == {served.url}
        assert tab.complaints == []


def test_the_policy_of_the_page_allows_no_inline_script_and_no_other_host(served: Served) -> None:
    with served.http(None) as http:
        answer = http.get("/docs")
        assert http.get("/redoc").status_code == 404
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "<script>" not in answer.text
