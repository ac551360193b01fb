"""Links of the documentation lead somewhere, and what it names exists."""

import re
from pathlib import Path

import pytest
from docs_builders import DOCS, FRONT, REPO, anchors, blocks, code_words, links, pages, prose

PLACES = ("omniq_verl", "recipes", "data_prep", "examples", "benchmarks", "tests", "constraints", "docs", ".ci")
MODULE = re.compile(r"^omniq_verl(\.\w+)+$")
UNCOMMON = ("mend", "mends", "thereof", "gone on with", "goes on where", "without eyes", "refused", "told apart by")
FORBIDDEN = ("pypi", "pythonhosted", "download.pytorch.org")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_within_the_repository_lead_to_a_file_and_a_heading(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = (REPO / page.parent / path).resolve() if path else REPO / page
        assert target.exists(), f"{page} links to {link}"
        assert target.is_relative_to(REPO), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(REPO)), f"{page} links to {link}"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_paths_and_modules_that_are_named_exist(page):
    for word in code_words(page):
        if re.match(rf"({'|'.join(map(re.escape, PLACES))})/[\w./*-]*$", word):
            assert list(REPO.glob(word.rstrip("/"))), f"{page} names {word}"
        elif MODULE.match(word):
            assert exists(word), f"{page} names {word}"


def exists(name: str) -> bool:
    """Is it a module of the package, or a name in one?"""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = REPO.joinpath(*parts[:cut])
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if source.is_file():
            rest = parts[cut:]
            return all(re.search(rf"\b{re.escape(part)}\b", source.read_text()) for part in rest)
    return False


def test_the_check_of_names_finds_what_is_not_there():
    assert exists("omniq_verl.rewards.Status")
    assert not exists("omniq_verl.rewards.Nothing")
    assert not exists("other_package.rewards")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_no_page_names_a_package_index_or_an_absolute_path_of_a_machine(page):
    text = (REPO / page).read_text(encoding="utf-8")
    assert not [name for name in FORBIDDEN if name in text]
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp)/", text)


def test_the_readme_is_a_page_and_begins_with_the_two_commands():
    lines = (REPO / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any("make quickstart" in line for line in lines[:15]) and any("make test" in line for line in lines[:15])


def test_the_readme_leads_to_every_page_of_the_documentation():
    seen, todo = set(), [Path("README.md")]
    while todo:
        page = todo.pop()
        seen.add(page)
        for link in links(page):
            target = (REPO / page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and (new := target.relative_to(REPO)) not in seen:
                todo.append(new)
    assert not {path.relative_to(REPO) for path in DOCS.rglob("*.md")} - seen


@pytest.mark.parametrize("page", pages(), ids=str)
def test_pages_are_in_common_words(page):
    words = re.sub(r"`[^`]*`", "", prose(page)).lower()
    assert not [word for word in UNCOMMON if re.search(rf"\b{word}\b", words)]


def test_every_block_says_its_language():
    assert not [str(block) for page in pages() for block in blocks(page) if not block.language]


def test_front_files_are_there():
    for name in (*FRONT, "CITATION.cff", "LICENSE", ".pre-commit-config.yaml", ".github/workflows/ci.yml"):
        assert (REPO / name).is_file(), name
