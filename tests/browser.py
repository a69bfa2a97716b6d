"""A headless Chromium for tests of pages, driven over a pipe (Chrome DevTools Protocol), without further packages.

`open_browser()` starts one; a test that finds none is skipped with the reason, but fails where the environment variable
CI is set. A page records everything that it writes to the console and everything that it requests.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from timesformer_experiments.report.browser import NONE_FOUND, find_browser

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # refused to root otherwise; the pages are our own
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
)
PATIENCE_SECONDS = 60.0
"""How long an answer may take: the first start of a browser on a busy machine is slow."""
# The browser reads commands from descriptor 3 and answers on 4.
_AS_3_AND_4 = """
import os, sys
reads, writes = (os.dup(int(number)) for number in sys.argv[1:3])
reads, writes = os.dup(reads), os.dup(writes)
while min(reads, writes) < 5:
    reads, writes = os.dup(reads), os.dup(writes)
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserError(AssertionError):
    """The browser did not do what it was told, or a page's own code raised."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser for as long as the block lasts; ends the test where there is none (see the module)."""
    path = find_browser()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(NONE_FOUND)
        pytest.skip(NONE_FOUND)
    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        browser = Browser(path, Path(profile))
        try:
            yield browser
        finally:
            browser.close()


class Browser:
    """One process of Chromium with a profile of its own."""

    def __init__(self, path: str, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._log = (profile / "stderr.txt").open("w+b")
        launcher = [sys.executable, "-c", _AS_3_AND_4, str(to_browser), str(from_browser)]
        self._process = subprocess.Popen(
            [*launcher, path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number, self._rest = 0, b""
        self._pages: dict[str, Page] = {}

    def open(self, address: str | Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        """A page of its own, loaded; sizes in CSS pixels. `address`: a URL or a local file."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        page.resize(width, height)
        page.goto(address)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """The answer to a command of the protocol; what happens meanwhile is noted by the pages."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        try:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        except BrokenPipeError as error:
            raise BrowserError(f"the browser has ended: {self._said()}") from error
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.next_message(give_up, method)
            if answer.get("id") == number:
                break
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def next_message(self, give_up: float, what: str) -> dict[str, Any]:
        """The next message of the browser, noted by its page."""
        while b"\0" not in self._rest:
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise BrowserError(f"{what}: no answer within {PATIENCE_SECONDS:.0f} s; {self._said()}")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise BrowserError(f"{what}: the browser has ended: {self._said()}")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.note(message["method"], message["params"])
        return message

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:] or "it said nothing"

    def close(self) -> None:
        """Ends the browser."""
        try:
            if self._process.poll() is None:
                os.write(self._write, b'{"id": 0, "method": "Browser.close"}\0')
                self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for descriptor in (self._write, self._read):
            os.close(descriptor)
        self._log.close()


class Page:
    """A page.

    console: (level, text) of each message, exceptions and the browser's own complaints included.  requests: addresses
    that it asked for, data: and the page itself included (see `foreign`).
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.console: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.address = ""
        self._loaded = False

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a command about this page."""
        return self._browser.call(method, parameters, self._session)

    def note(self, method: str, found: dict[str, Any]) -> None:
        """What the browser says has happened."""
        if method == "Runtime.consoleAPICalled":
            text = " ".join(str(part.get("value", part.get("description", ""))) for part in found["args"])
            self.console.append((found["type"], text))
        elif method == "Runtime.exceptionThrown":
            self.console.append(("error", _thrown(found["exceptionDetails"])))
        elif method == "Log.entryAdded":
            self.console.append((found["entry"]["level"], found["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def goto(self, address: str | Path) -> None:
        """Loads an address or a local file, and waits until all of it is there."""
        self.address = address.resolve().as_uri() if isinstance(address, Path) else address
        self._loaded = False
        answer = self.call("Page.navigate", {"url": self.address})
        if answer.get("errorText"):
            raise BrowserError(f"{self.address}: {answer['errorText']}")
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self._loaded:
            self._browser.next_message(give_up, f"loading {self.address}")

    def foreign(self) -> list[str]:
        """Requests for anything but the page itself and data inside it."""
        return [url for url in self.requests if url != self.address and not url.startswith(("data:", "blob:"))]

    def errors(self) -> list[str]:
        """What the console shows as an error or a warning."""
        return [f"{level}: {text}" for level, text in self.console if level in ("error", "warning", "assert")]

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, as plain data; a promise is waited for."""
        wanted = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", wanted)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(_thrown(details))
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 10.0) -> Any:
        """The first true value of an expression; raises BrowserError if there is none in time."""
        give_up = time.monotonic() + seconds
        while not (value := self.evaluate(script)):
            if time.monotonic() > give_up:
                raise BrowserError(f"{script}: not true within {seconds:.0f} s")
            time.sleep(0.02)
        return value

    def resize(self, width: int, height: int) -> None:
        """The size of the view in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def box(self, selector: str) -> dict[str, float]:
        """x, y, width and height of the first element that a CSS selector finds, scrolled into view."""
        found = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            " const {x, y, width, height} = e.getBoundingClientRect(); return {x, y, width, height}; })()"
        )
        if found is None:
            raise BrowserError(f"{selector}: no such element")
        return found

    def click(self, x: float | str, y: float | None = None) -> None:
        """Clicks with the mouse at a point of the view, or on the middle of the element of a selector."""
        if isinstance(x, str):
            box = self.box(x)
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.mouse("mouseMoved", x, y or 0)
        self.mouse("mousePressed", x, y or 0, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y or 0, button="left", clickCount=1)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse: mouseMoved, mousePressed, mouseReleased or mouseWheel."""
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Presses a key: its name as in KeyboardEvent.key, its Windows key code, the text that it types."""
        down = {"type": "keyDown" if text else "rawKeyDown", "key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", down | ({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code})

    def screenshot(self, path: Path | None = None, whole: bool = False) -> bytes:
        """What is seen as a PNG, of the whole page if wanted; also written to `path`."""
        image = base64.b64decode(self.call("Page.captureScreenshot", {"captureBeyondViewport": whole})["data"])
        if path is not None:
            path.write_bytes(image)
        return image


def _thrown(details: dict[str, Any]) -> str:
    """What a page's code has thrown."""
    thrown = details.get("exception", {})
    return str(thrown.get("description", thrown.get("value", details["text"])))
