"""Best of n: several images for each text, scored by a reward model, the best picked (OmniQuality-R sec. 4.3, table 5).

Every image and every score is kept as soon as it is there; a killed run draws and scores nothing twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
    draw_missing,
    image_path,
    pick,
    score_missing,
    write_conditions,
)
from omniq_verl.t2i.contact_sheet import scores_said, write_sheet
from omniq_verl.t2i.generator import open_generator
from omniq_verl.t2i.image_scorers import ImageScorers


@dataclass(frozen=True)
class BestOfN(GuidedRun):
    """A run."""

    n: int = 20
    """Images for each text: table 5."""
    rali: Path | None = None
    """Folder of a fitted RALI, which scores the task it was fitted for; the scorer has the others."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n from 1, got {self.n}")
        super().__post_init__()

    def drawings(self, number: int) -> list[Candidate]:
        """All images of a text."""
        text = self.prompts[number]["prompt"]
        return [Candidate(number, image, text, self.seed + image) for image in range(self.n)]


def best_of_n(run: BestOfN, console: Console) -> list[dict[str, Any]]:
    """Draw, score, pick; returns the picks, as ``picks.jsonl`` holds them.

    ``out`` gets ``candidates/00000/samples/00000.png`` (GenEval's form) with ``metadata.jsonl``, ``best/00000/...`` in
    the same form with the picked image alone, ``sheets/00000.png`` with all images and their scores, and
    ``picks.jsonl``: ``prompt``, ``best`` (None where no image has all scores), ``seed``, ``ranking``, ``scores``,
    ``rejected``.

    Raises:
        ValueError: settings that do not fit, a model that is not opened, or a folder begun with other settings.
    """
    scorers = ImageScorers(run.tasks, run.scorer, run.rali, run.max_tokens)  # before hours of drawing
    settings = run.settings() if scorers.rali is None else {**run.settings(), "rali": scorers.rali.digest}
    by_text = [run.drawings(number) for number in range(len(run.prompts))]
    run.out.mkdir(parents=True, exist_ok=True)
    with Records(run.out / "scores", settings) as scores, progress_bar(console, "images") as bar:
        write_conditions(run)
        _draw_and_score(run, [candidate for drawings in by_text for candidate in drawings], scores, scorers, bar)
    picks = [_pick(run, drawings, scores.found) for drawings in by_text]
    replace_text(run.out / "picks.jsonl", "".join(json.dumps(one) + "\n" for one in picks))
    return picks


def _draw_and_score(
    run: BestOfN, drawings: Sequence[Candidate], scores: Records, scorers: ImageScorers, bar: Progress
) -> None:
    drawn, scored = (partial(bar.advance, bar.add_task(title, total=len(drawings))) for title in ("drawing", "scoring"))
    # Named nowhere else: the pipeline's memory is free again when the model that scores is loaded.
    draw_missing(run, drawings, cache(lambda: open_generator(run.generator)), drawn)
    score_missing(run, drawings, scores, scorers, scored)


def _pick(run: BestOfN, drawings: Sequence[Candidate], scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    choice, record = pick(run, drawings, scores)
    paths, said = [image_path(run, candidate) for candidate in drawings], scores_said(record["scores"], choice)
    write_sheet(run.out / "sheets" / f"{drawings[0].number:05d}.png", record["prompt"], paths, said, choice.best)
    return record
