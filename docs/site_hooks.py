"""Hook of the documentation site: links that leave ``docs/`` become plain text.

Pages link to code, recipes and examples by relative paths, which work on GitHub. The site has no such files.
"""

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s:]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links to files outside of the documentation by their text."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[2].partition("#")[0]))
        return found[1] if target.startswith("..") else found[0]

    return _LINK.sub(inside, markdown)
