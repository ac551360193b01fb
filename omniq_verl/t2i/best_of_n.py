"""Best of n: draw several images for each text, score them and pick the best (OmniQuality-R sec. 4.3, table 5).

Every image and score is saved immediately; a killed run redraws and rescores nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from omniq_verl.console import progress_bar
from omniq_verl.data.files import replace_text
from omniq_verl.t2i.candidates import (
    Candidate,
    GuidedRun,
    Records,
    check_drawn,
    draw_missing,
    image_path,
    pick,
    score_missing,
    write_conditions,
)
from omniq_verl.t2i.contact_sheet import score_captions, write_sheet
from omniq_verl.t2i.generator import open_generator
from omniq_verl.t2i.image_scorers import ImageScorers
from omniq_verl.tasks import scale_of


@dataclass(frozen=True)
class BestOfN(GuidedRun):
    """Settings of a best-of-n run."""

    n: int = 20
    """Images for each text; 20 in table 5."""
    rali: Path | None = None
    """Folder of a fitted RALI model, which scores the task it was fitted for; the scorer scores the others."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be >= 1, got {self.n}")
        super().__post_init__()

    def drawings(self, number: int) -> list[Candidate]:
        """All candidate images of a text."""
        text = self.prompts[number]["prompt"]
        return [Candidate(number, image, text, self.seed + image) for image in range(self.n)]


def best_of_n(run: BestOfN, console: Console) -> list[dict[str, Any]]:
    """Draw, score and pick; returns the lines of ``picks.jsonl``.

    Writes into ``out``: ``candidates/00000/samples/00000.png`` (GenEval's layout) with ``metadata.jsonl``;
    ``best/00000/...``, the same layout with only the picked image; ``sheets/00000.png`` with all images and their
    scores; and ``picks.jsonl`` with ``prompt``, ``best`` (None if no image has all scores), ``seed``, ``ranking``,
    ``scores`` and ``rejected``.

    Raises:
        ValueError: invalid settings, a model that cannot be loaded, or a folder started with other settings.
    """
    scorers = ImageScorers(
        run.tasks, run.scorer, run.rali, run.max_tokens, scale_of(run.scale)
    )  # before hours of drawing
    settings = run.settings() if scorers.rali is None else {**run.settings(), "rali": scorers.rali.digest}
    by_text = [run.drawings(number) for number in range(len(run.prompts))]
    run.out.mkdir(parents=True, exist_ok=True)
    # Before the scores are compared: an error about them only says to delete the scores.
    check_drawn(run, chain.from_iterable(by_text))
    with Records(run.out / "scores", settings) as scores, progress_bar(console, "images") as bar:
        write_conditions(run)
        _draw_and_score(run, list(chain.from_iterable(by_text)), scores, scorers, bar)
    picks = [_pick(run, drawings, scores.found) for drawings in by_text]
    replace_text(run.out / "picks.jsonl", "".join(json.dumps(one) + "\n" for one in picks))
    return picks


def _draw_and_score(
    run: BestOfN, drawings: Sequence[Candidate], scores: Records, scorers: ImageScorers, bar: Progress
) -> None:
    drawn, scored = (partial(bar.advance, bar.add_task(title, total=len(drawings))) for title in ("drawing", "scoring"))
    # No other reference to the pipeline: its memory is freed before the scoring model is loaded.
    draw_missing(run, drawings, cache(lambda: open_generator(run.generator)), drawn)
    score_missing(run, drawings, scores, scorers, scored)


def _pick(run: BestOfN, drawings: Sequence[Candidate], scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    choice, record = pick(run, drawings, scores)
    paths, captions = [image_path(run, candidate) for candidate in drawings], score_captions(record["scores"], choice)
    write_sheet(run.out / "sheets" / f"{drawings[0].number:05d}.png", record["prompt"], paths, captions, choice.best)
    return record
