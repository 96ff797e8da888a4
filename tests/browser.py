"""Debian's Chromium without a window, and a plain static server, for tests of pages."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

AXE = Path(__file__).parent / "node" / "node_modules" / "axe-core" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """It keeps a log of its console and of what it requests; its camera shows a test picture."""
    options = webdriver.ChromeOptions()
    # Debian's name, and Ubuntu's.
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-background-networking",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def resize(browser: webdriver.Chrome, width: int, scheme: str = "light") -> None:
    """A desktop, or below 500 pixels a telephone; `light` or `dark`."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_fresh(browser: webdriver.Chrome, address: str) -> None:
    """Open a page, with the logs emptied."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)


def serious(browser: webdriver.Chrome) -> list[str]:
    """What axe-core finds serious or critical on the page that is open, with a place for each."""
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script(
        "axe.run(document, {resultTypes: ['violations']}).then((result) =>"
        " arguments[arguments.length - 1](result.violations))"
    )
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def press(browser: webdriver.Chrome, *keys: str) -> None:
    """Press keys, one after the other."""
    webdriver.ActionChains(browser).send_keys(*keys).perform()


def downloads(browser: webdriver.Chrome, folder: Path) -> None:
    """Where files that a page saves go."""
    where = {"behavior": "allow", "downloadPath": str(folder)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)


def requested(browser: webdriver.Chrome) -> set[str]:
    """Every address that was asked for since the logs were emptied."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {params["request"]["url"] for params in sent}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a plain static server on loopback."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
