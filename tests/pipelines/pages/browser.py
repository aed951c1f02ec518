"""Headless browser for tests of pages: the installed Chromium, with the network off for files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def opened(page: Path | str, width_px: int = 360) -> Iterator[tuple[Any, list[str]]]:
    """The page, a file or an address of this machine, in a browser, and what its console said; skips where no
    browser is installed."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    complaints: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            context = browser.new_context(
                offline=isinstance(page, Path), viewport={"width": width_px, "height": 740}
            )
            view = context.new_page()
            view.on("console", lambda message: complaints.append(message.text))
            view.on("pageerror", lambda error: complaints.append(str(error)))
            view.goto(page.as_uri() if isinstance(page, Path) else page)
            yield view, complaints
        finally:
            browser.close()
