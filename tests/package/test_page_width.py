"""Pages of reports on a phone: nothing leaves the page, however long a path, and tables scroll on their own."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import Environment

from omniq_verl.evaluation.heatmap_page import NEWLINE, strips_of

PACKAGE = Path(__file__).parents[2] / "omniq_verl"
TEMPLATES = sorted(PACKAGE.rglob("*.html"))
PHONE = 360
LONG = "runs/" + "a_folder_with_a_long_name_" * 8 + "huggingface"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
SOURCE = {
    **{"images": {"kept": 123456, "too_easy": 123456, "too_hard": 123456}, "paths": {"right": 123456, "learned": 9}},
    **{"acceptance": 0.5, "records": 123456, "tokens": 350.0, "level_edges": [1.0, 1.8, 2.6, 3.4, 4.2, 5.0]},
}
EXAMPLE = {
    **{"image": PIXEL, "key": LONG, "outcome": "too_easy", "right": 1, "paths": [1], "score": 3.0, "level": "fair"},
    **{"plan": LONG, "path": LONG, "fault": "wrong_level"},
}
COT = {
    "counts": {
        **{"records": 3, "made_by": LONG, "paths_per_image": 8, "without_plan": {LONG: 1}},
        **{"select": {"min_pass_rate": 0, "max_pass_rate": 1, "max_paths": 4, "emphasis": "hard"}},
        **{"generated": {"plan": {"answers": 10**6, "tokens": 10**8}}, "sources": {"a_data_set_with_a_name": SOURCE}},
    },
    **{"pass_rates": PIXEL, "lengths": PIXEL, "levels": PIXEL, "examples": [EXAMPLE], "conditions": [("model", LONG)]},
}
TABLE = {"title": LONG, "columns": ["set", *["0.123 column"] * 9], "rows": [[LONG, *["0.123 [0.1, 0.2]"] * 9]]}
EVALUATION = {
    **{"note": LONG, "metrics": {"made_by": LONG, "warnings": [LONG]}, "tables": [TABLE], "gaps": [LONG]},
    **{"pictures": {"a": PIXEL}, "provenance": [("model", LONG)]},
    "worst": {LONG: [{"image": PIXEL, "key": LONG, "what": LONG, "answers": [LONG]}]},
}
BOARD = {"columns": TABLE["columns"], "rows": TABLE["rows"], "notes": [LONG], "made_by": LONG}
FINDING = {"title": LONG, "question": LONG, "found": [LONG], "tables": [TABLE], "reading": [LONG]}
FINDINGS = {"finding": FINDING, "pictures": {"plot": PIXEL}, "conditions": [("model", LONG)], "made_by": LONG}
ANSWER = {"run": LONG, "said": "3.00", "reasoning": LONG, "tokens": 350}
SIDE_BY_SIDE = {
    "rows": [
        {"image": PIXEL, "key": LONG, "task": "alignment", "text": LONG, "label": "3.00", "answers": [ANSWER] * 2}
    ],
    **{"lengths": PIXEL, "table": [(LONG, "a_data_set_with_a_name", "350.0 ± 20.0")], "conditions": [("model", LONG)]},
}
WORDS = {
    "rows": [{"image": PIXEL, "name": LONG, "answers": [(LONG, [(LONG, "#ffffff", "#000000", "0.1 nats")] * 3)] * 2}],
    "about": [{"name": LONG, "words": 300, "mean_entropy": 0.5, "high_from": 1.0, "high_share": 0.2}],
    **{"most": 2.0, "conditions": [("model", LONG)]},
}
CHECKPOINTS = [
    {"name": LONG, "folder": LONG, "tokens": 60, "tokens_passed": 12, "gate_threshold": 1.0, "mean_entropy": 0.5}
] * 2
TOKENS = pd.DataFrame(
    {"token": ["token"] * 59 + [LONG], "entropy": 0.5, "probability": 0.1, "rank": 1, "passed": [True, False] * 30}
)
HEATMAP = {
    "about": {"image": LONG, "question": LONG, "answer_is": LONG, "rho": 0.2, "checkpoints": CHECKPOINTS},
    "shown": list(TOKENS.token),
    "strips": strips_of(CHECKPOINTS, [TOKENS, TOKENS.assign(entropy=0.7)]),
    **{"image": PIXEL, "newline": NEWLINE, "conditions": [("model", LONG)]},
}
CONTEXTS = {
    "cot/templates/report": COT,
    "evaluation/templates/heatmap": HEATMAP,
    "evaluation/templates/report": EVALUATION,
    "publishing/templates/leaderboard": BOARD,
    "findings/templates/finding": FINDINGS,
    "evaluation/templates/side_by_side": SIDE_BY_SIDE,
    "evaluation/templates/words": WORDS,
    "serving/templates/demo": {},
}


def test_there_are_pages_and_each_fits_its_device():
    assert {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in TEMPLATES} == CONTEXTS.keys()
    for path in TEMPLATES:
        assert 'name="viewport" content="width=device-width' in path.read_text(), path


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no browser")
@pytest.mark.parametrize("page", CONTEXTS)
def test_nothing_leaves_the_page_of_a_phone(tmp_path, page):
    source = (PACKAGE / f"{page}.html").read_text()
    # A frame, as a browser's window has a least width that is larger than a phone's.
    (tmp_path / "inner.html").write_text(Environment(autoescape=True).from_string(source).render(CONTEXTS[page]))
    (tmp_path / "page.html").write_text(
        f"<iframe id=f src=inner.html width={PHONE} height=2000></iframe><p id=out></p><script>f.onload = () => {{"
        "const page = f.contentDocument, all = [...page.body.querySelectorAll('*')];"
        f"const far = one => one.getBoundingClientRect().right > {PHONE} + 1;"
        "const past = all.filter(one => !one.closest('.wide, .tokens') && far(one));"
        "out.textContent = 'WIDTH ' + page.documentElement.scrollWidth + ' PAST ' + past.map(one => one.tagName);"
        "}</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               "--virtual-time-budget=5000", "--dump-dom", f"file://{tmp_path / 'page.html'}"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    width, past = re.search(r"WIDTH (\d+) PAST ([A-Z0-9,]*)<", found).groups()
    assert int(width) <= PHONE and past == ""
