"""The documentation site builds without a warning, and loads nothing from other servers."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from docs_builders import DOCS, REPO

pytestmark = pytest.mark.slow

pytest.importorskip("mkdocs", reason="needs the extra docs")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPO,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


class _Loads(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED and values.get("rel") not in ("canonical", "edit", "next", "prev"):
            self.found.append(values.get(LOADED[tag]) or "")


def test_every_page_of_the_documentation_is_a_page_of_the_site(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page


def test_no_page_loads_anything_from_another_server(site):
    for page in site.rglob("*.html"):
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not [one for one in loads.found if re.match(r"(https?:)?//", one)], page


def test_links_that_leave_the_documentation_are_text(site):
    page = (site / "reference/api.html").read_text(encoding="utf-8")
    assert "scorer.py</a>" not in page and "Code: scorer.py" in page


def test_the_reference_holds_the_docstrings(site):
    page = (site / "reference/api.html").read_text(encoding="utf-8")
    for name in ("Scorer", "RaliScorer", "Client", "compute_score", "parse_response", "EngineSpec"):
        assert re.search(rf'id="omniq_verl\.[\w.]*\.{name}"', page), name


def test_the_hooks_and_notes_of_the_authors_are_no_pages(site):
    assert not list(site.rglob("site_hooks*"))
