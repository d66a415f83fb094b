"""A small driver of headless Chromium over the DevTools protocol, for tests of the web page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
SECONDS = 30.0
KEYS = {"Tab": 9, "Enter": 13, "Space": 32, "Escape": 27}


def executable() -> str | None:
    """Return the path of Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run a browser with an empty profile."""
    path = executable()
    assert path is not None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [path, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield Browser(_port(profile / "DevToolsActivePort", process))
    finally:
        process.terminate()
        process.wait(20)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + SECONDS
    while not (file.exists() and "\n" in file.read_text()):
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < deadline, "the browser does not listen"
        time.sleep(0.05)
    return int(file.read_text().splitlines()[0])


class Browser:
    """A browser that runs, by the port of its protocol."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextmanager
    def tab(self, **asked: Any) -> Iterator[Tab]:
        """Open a tab; see `Tab.look_like` for what can be asked of it."""
        opened = httpx.put(f"http://127.0.0.1:{self._port}/json/new", timeout=SECONDS).json()
        try:
            with connect(opened["webSocketDebuggerUrl"], max_size=None) as socket:
                tab = Tab(socket)
                tab.look_like(**asked)
                tab.call("Network.clearBrowserCookies")
                yield tab
        finally:  # a page that is open holds a line to the service, and there are six
            httpx.get(f"http://127.0.0.1:{self._port}/json/close/{opened['id']}", timeout=SECONDS)


class Tab:
    """A tab: goes to pages, presses keys, and writes down whatever the browser complains of."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._last = 0
        self._events: list[tuple[str, dict[str, Any]]] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.bringToFront")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and return its result."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        deadline = time.monotonic() + SECONDS
        while True:
            message = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.01)))
            if message.get("id") == self._last:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def look_like(
        self, *, dark: bool = False, script: bool = True, width: int = 1360, height: int = 900
    ) -> None:
        """Prefer dark colours; run no script; have this size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def goto(self, url: str) -> None:
        """Go to a page and wait until all of it is there."""
        self._events.clear()
        self.call("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait for the end of a navigation that has begun."""
        deadline = time.monotonic() + SECONDS
        while not any(name == "Page.loadEventFired" for name, _ in self._events):
            self._note(json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.01))))
        self._events.clear()

    def js(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        how = {"returnByValue": True, "awaitPromise": True, "allowUnsafeEvalBlockedByCSP": False}
        found = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = SECONDS) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self._is(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.complaints}"
            time.sleep(0.05)

    def _is(self, expression: str) -> bool:
        try:
            return bool(self.js(f"!!({expression})"))
        except AssertionError as error:
            if "navigated" not in str(error):  # on its way from one page to the next
                raise
            return False

    def text(self, selector: str) -> str:
        """Return the visible text of an element."""
        text: str = self.js(f"document.querySelector({json.dumps(selector)}).innerText")
        return text

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse, as people do."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.js(f"JSON.stringify({place}.getBoundingClientRect())")
        found = json.loads(box)
        x, y = found["x"] + found["width"] / 2, found["y"] + found["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        known = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": {"text": "\r"}, "Space": {"text": " "}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def write(self, text: str) -> None:
        """Write into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def focused(self) -> str:
        """Return id, or text, of the element that has the focus."""
        found: str = self.js("document.activeElement.id || document.activeElement.innerText.trim()")
        return found

    def tab_to(self, wanted: str, most: int = 60) -> None:
        """Press the tabulator until something is focused, by id or text."""
        passed = []
        for _ in range(most):
            self.press("Tab")
            passed.append(self.focused())
            if passed[-1] == wanted:
                return
        raise AssertionError(f"{wanted!r} cannot be reached by keyboard, only {passed}")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen, or the whole page, as PNG."""
        more: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            more = {"clip": clip, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **more)["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        name, said = message.get("method", ""), message.get("params", {})
        self._events.append((name, said))
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"{said['type']}: {[part.get('value') for part in said['args']]}")
        elif name == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            entry = said["entry"]
            self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
