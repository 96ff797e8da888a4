"""Pictures of a report or a demo page: desktop and telephone, light and dark.

    python tests/screenshots.py report.html -o FOLDER
    python tests/screenshots.py SITE -o FOLDER [--photographs a.jpg b.jpg]

SITE is a folder that `export demo` wrote. The whole page is in each picture, NAME-WIDTH-SCHEME.png.
"""

from __future__ import annotations

import argparse
import base64
from contextlib import nullcontext
from pathlib import Path

from browser import chromium, open_fresh, resize, served
from elsewhere import choose
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")


def whole_page(browser: webdriver.Chrome) -> bytes:
    """A PNG of the page from top to bottom."""
    taken = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
    )
    return base64.b64decode(taken["data"])


def screenshots(page: Path, folder: Path, photographs: list[Path]) -> list[Path]:
    """Take all pictures; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    site = served(page) if page.is_dir() else nullcontext(page.resolve().as_uri())
    with site as address, chromium() as browser:
        for width in WIDTHS:
            for scheme in SCHEMES:
                resize(browser, width, scheme)
                open_fresh(browser, address)
                if page.is_dir():
                    WebDriverWait(browser, 60).until(
                        lambda shown: shown.execute_script("return document.body.dataset.ready")
                    )
                    if photographs:
                        choose(browser, [each.resolve() for each in photographs])
                path = folder / f"{page.stem}-{width}-{scheme}.png"
                path.write_bytes(whole_page(browser))
                written.append(path)
    return written


def main() -> None:
    """Parse, take, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=Path, help="report.html, or the folder of a demo page")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    for path in screenshots(given.page, given.output, given.photographs):
        print(path)


if __name__ == "__main__":
    main()
