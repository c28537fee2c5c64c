"""A headless Chromium driven over its own pipe: pages, keys, sizes, colour schemes, pictures.

Nothing but the standard library: `--remote-debugging-pipe` speaks JSON, one message ending in a
zero byte, on file descriptors 3 and 4 (Chrome DevTools Protocol).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Puts the two ends of our pipes where the browser looks for them, then becomes the browser.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, if this machine has one ($CHROMIUM names another)."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium(executable: str, profile: Path) -> Iterator[Browser]:
    """A running browser with an empty profile; it is gone when the context ends."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    inner = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write)]
    os.close(to_read)
    os.close(from_write)
    flags = [*_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _LAUNCH, *map(str, inner), executable, *flags],
        pass_fds=inner,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in inner:
        os.close(end)
    try:
        yield Browser(to_write, from_read)
    finally:
        os.close(to_write)  # the browser ends when its pipe does
        os.close(from_read)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Browser:
    """Sends commands and collects what the browser tells unasked."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._number = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of one command; raises `RuntimeError` with the browser's reason."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._receive, 1 << 16)
            if not data:
                raise RuntimeError("the browser has gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new page at `url`, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"], target)
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        for part in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{part}.enable")
        page.call("Page.navigate", url=url)
        page.wait("document.readyState === 'complete'")
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser, self.session, self.target = browser, session, target

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.value(condition):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not true after {seconds} s: {condition}")
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, such as "Tab", "ArrowLeft" or "Enter"."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36}
        codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
            )  # fmt: skip

    def point(self, x: float, y: float, *, click: bool = False) -> None:
        """Moves the pointer to a place in the window, and presses there."""
        kinds = ["mouseMoved", *(["mousePressed", "mouseReleased"] if click else [])]
        for kind in kinds:
            button = "none" if kind == "mouseMoved" else "left"
            self.call(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button=button, clickCount=int(button == "left"),
            )  # fmt: skip

    def errors(self) -> list[str]:
        """Everything this page complained of: exceptions, console errors, refused content."""
        self.value("0")  # what was sent before this answer has arrived by then
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            kind, what = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown":
                found.append(json.dumps(what["exceptionDetails"]))
            if kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                found.append(what["entry"]["text"])
            if kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
                found.append(json.dumps(what["args"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that this page asked for, data inside the page left out."""
        self.value("0")
        asked = [
            event["params"]["request"]["url"]
            for event in self.browser.events
            if event.get("sessionId") == self.session
            and event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        inside = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.value(inside))

    def picture(self, file: Path, *, whole: bool = True) -> None:
        """A PNG of the page, all of it or what the window shows."""
        found = self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=whole,
            **({"clip": self._whole()} if whole else {}),
        )
        file.write_bytes(base64.b64decode(found["data"]))

    def _whole(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def close(self) -> None:
        """Closes the tab."""
        self.browser.call("Target.closeTarget", targetId=self.target)
