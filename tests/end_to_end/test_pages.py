"""Links, headings and files that the pages name are there."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "models/weights/small.md")
]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FOLDERS = "str_app|models|datasets|serve|research|scripts|docs|tests|deploy"


def anchors(page):
    """The fragments that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "extending.md"], ids=lambda page: page.name)
def test_files_and_modules_named_exist(page):
    """But for those that docs/how-to/extending.md asks for; its recipes have tests of their own."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"`((?:{FOLDERS})/[\w/.-]*\w)/?`", text):
        assert (ROOT / path).exists(), path
    for command in re.findall(r"\b((?:research|scripts)/\w+\.(?:py|sh))", text):
        assert (ROOT / command).is_file(), command
    for module in re.findall(r"python -m (str_app[\w.]*)", text):
        assert importlib.util.find_spec(module), module


def test_every_error_code_of_the_server_is_on_its_page():
    raised = re.compile(r'ProblemError\(\s*\d{3},\s*"([a-z_]+)"')
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "serve").rglob("*.py"))
    codes = set(raised.findall(sources)) | {"not_found", "method_not_allowed"}  # the framework's
    assert len(codes) > 20
    page = (ROOT / "docs/how-to/serving.md").read_text(encoding="utf-8")
    assert not {code for code in codes if f"`{code}`" not in page}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_outside_tables_and_code_fit(page):
    prose = re.sub(r"```.*?```|<!-- table: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 120 and not line.lstrip().startswith("|")]
