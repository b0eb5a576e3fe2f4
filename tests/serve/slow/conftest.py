"""A browser, and a server for its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.slow.browser import Page, chromium
from tests.serve.slow.real_server import RealServer


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    # A name that is no localhost: browsers give its pages no clipboard.
    with chromium("--host-resolver-rules=MAP page.test 127.0.0.1") as driver:
        yield driver


@pytest.fixture(scope="module")
def page_server(driver: Any) -> Iterator[RealServer]:
    with RealServer() as server:
        yield server


@pytest.fixture
def opened(driver: Any, page_server: RealServer) -> Iterator[Callable[..., Page]]:
    """Opens the page; at the end nothing foreign was asked for and the console is empty."""
    pages = []

    def open_page(**options: Any) -> Page:
        pages.append(Page(driver, options.pop("url", page_server.url), **options))
        return pages[-1]

    yield open_page
    for page in pages:
        # Over plain HTTP from elsewhere than localhost this one header is not heeded, and browsers say so.
        complaints = [line for line in page.complaints() if "Cross-Origin-Opener-Policy" not in line]
        foreign = page.foreign_requests()
        page.close()
        assert foreign == []
        assert complaints == []
