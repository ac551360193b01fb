"""The documentation as data: pages, blocks of code, tables, headings and links."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FOLDERS = ("recipes", "benchmarks", "data_prep", "examples")
_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_MARKER = re.compile(r"^<!-- ([a-z ]+): (.+) -->$")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every page that a user reads, as paths from the root of the repository."""
    found = [REPO / name for name in FRONT] + sorted(DOCS.rglob("*.md"))
    for folder in FOLDERS:
        found += sorted((REPO / folder).rglob("README.md"))
    return [path.relative_to(REPO) for path in found]


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    """Line of its first fence, from 1."""
    language: str
    text: str
    marker: tuple[str, str]
    """Kind and value of a comment right before it, such as ("file", "my_reward.py"); else two empty texts."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, all or those in some languages."""
    found = list(_blocks(page))
    return [block for block in found if not languages or block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    lines = (REPO / page).read_text(encoding="utf-8").splitlines()
    start, marker, before = None, ("", ""), ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if start is None and fence:
            found = _MARKER.match(before)
            start, marker = (number, fence), (found[1], found[2]) if found else ("", "")
        elif start and fence:
            text = "\n".join(lines[start[0] : number - 1]) + "\n"
            yield Block(page, start[0], start[1][2], text, marker)
            start = None
        before = line
    assert start is None, f"{page}:{start} is never closed"


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    kept, inside = [], False
    for line in (REPO / page).read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    return [found[3] for found in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """What links to headings of the page end in, as GitHub makes it."""
    return {_slug(found[1]) for found in re.finditer(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def _slug(heading: str) -> str:
    text = _LINK.sub(lambda found: found[2], heading).replace("`", "").strip().lower()
    kept = [c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN"]
    return "".join(kept).replace(" ", "-")


def code_words(page: Path) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


@dataclass(frozen=True)
class Table:
    """A table below a heading."""

    heading: str
    below: str
    """The prefix from a line ``Keys below `PREFIX`:`` before the table; empty if there is none."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(page: Path) -> list[Table]:
    """The tables of a page."""
    found, heading, below, lines = [], "", "", []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            lines.append(tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))))
            continue
        if lines:
            found.append(Table(heading, below, lines[0], tuple(lines[2:])))
            lines, below = [], ""
        if line.startswith("#"):
            heading, below = line.lstrip("# "), ""
        elif prefix := re.match(r"Keys below `([^`]+)`:$", line):
            below = prefix[1] + "."
    return found


def bare(cell: str) -> str:
    """A cell without its backticks."""
    return cell.strip("`")
