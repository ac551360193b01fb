"""Best of n: several images for each text, scored by a reward model, the best picked (OmniQuality-R sec. 4.3, table 5).

Every image and every score is kept as soon as it is there; a killed run draws and scores nothing twice.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from omniq_verl.data.files import replace_text
from omniq_verl.generation.engines import EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.scoring.scorer import Scorer, asked_tasks
from omniq_verl.t2i.generator import GeneratorSpec, open_generator
from omniq_verl.t2i.geneval import prompt_folder, sample_name
from omniq_verl.t2i.selection import Choice, choose_in_order, choose_weighted
from omniq_verl.t2i.sheet import write_sheet


@dataclass(frozen=True)
class BestOfN:
    """A run."""

    prompts: Sequence[Mapping[str, Any]]
    """Each with ``prompt``, its text; all else is kept beside its images (GenEval's ``metadata.jsonl``)."""
    out: Path
    """The run's folder: goes on where it stopped."""
    generator: GeneratorSpec
    scorer: EngineSpec
    n: int = 20
    """Images for each text: table 5."""
    weights: Mapping[str, float] = field(default_factory=lambda: {"alignment": 1.0})
    """By task: what the images are ranked by, as a weighted mean."""
    order: Sequence[str] = ()
    """Tasks, the most important first: ranked in order instead of by weights."""
    within: float = 0.0
    """In order: scores this close to the best count as equal to it."""
    batch: int = 4
    """Images drawn at a time."""
    max_tokens: int = 1024
    seed: int = 0
    """Image number i of every text has the seed ``seed + i``."""

    def __post_init__(self) -> None:
        if min(self.n, self.batch) < 1 or self.seed < 0 or not self.prompts:
            raise ValueError("n and batch from 1, seed from 0, and at least one prompt")
        for one in self.prompts:
            if not (isinstance(one.get("prompt"), str) and one["prompt"].strip()):
                raise ValueError(f"every prompt needs its text under 'prompt', got {dict(one)}")
        names = self.order or self.weights or ["alignment"]
        self.choose({name: [1.0] for name in names})  # weights and order, before anything is drawn
        if without := [task.name for task in asked_tasks(self.tasks) if task.scale is None]:
            raise ValueError(f"{without[0]} gives no score to choose by")

    @property
    def tasks(self) -> tuple[str, ...]:
        """What every image is scored for."""
        return tuple(self.order) or tuple(task for task, weight in self.weights.items() if weight > 0)

    def choose(self, scores: Mapping[str, Sequence[float | None]]) -> Choice:
        """The best of a text's images.

        Raises:
            ValueError: the weights or the order do not fit together.
        """
        if self.order:
            return choose_in_order(scores, self.order, self.within)
        return choose_weighted(scores, self.weights)


def best_of_n(run: BestOfN, console: Console) -> list[dict[str, Any]]:
    """Draw, score, pick; returns the picks, as ``picks.jsonl`` holds them.

    ``out`` gets ``candidates/00000/samples/00000.png`` (GenEval's form) with ``metadata.jsonl``, ``best/00000/...`` in
    the same form with the picked image alone, ``sheets/00000.png`` with all images and their scores, and
    ``picks.jsonl``: ``prompt``, ``best`` (None where no image has all scores), ``seed``, ``ranking``, ``scores``,
    ``refused``.

    Raises:
        ValueError: settings that do not fit, a model that is not opened, or a folder begun with other settings.
    """
    run.scorer.check()  # before hours of drawing
    run.out.mkdir(parents=True, exist_ok=True)
    with Store(run.out / "scores", _settings(run)) as store, _bar(console) as bar:
        draw_missing(run, bar)
        score_missing(run, store, bar)
        scores = {record["key"]: record for record in read_store(run.out / "scores")}
    picks = [pick(run, number, scores) for number in range(len(run.prompts))]
    replace_text(run.out / "picks.jsonl", "".join(json.dumps(one) + "\n" for one in picks))
    return picks


def draw_missing(run: BestOfN, bar: Progress) -> None:
    """Draw the images that are not there yet."""
    missing = {
        number: [image for image in range(run.n) if not image_path(run, number, image).is_file()]
        for number in range(len(run.prompts))
    }
    total = len(run.prompts) * run.n
    task = bar.add_task("drawing", total=total, completed=total - sum(map(len, missing.values())))
    generator = None
    for number, mine in missing.items():
        text = run.prompts[number]["prompt"]
        for first in range(0, len(mine), run.batch):
            generator = generator or open_generator(run.generator)
            prompt_folder(run.out / "candidates", number, run.prompts[number])
            some = mine[first : first + run.batch]
            images = generator.draw(text, [run.seed + image for image in some])
            for image, drawn in zip(some, images, strict=True):
                _save(drawn, image_path(run, number, image), {"prompt": text, "seed": str(run.seed + image)})
            bar.update(task, advance=len(some))


def score_missing(run: BestOfN, store: Store, bar: Progress) -> None:
    """Score the images that have no score yet."""
    left = [pair for pair in _candidates(run) if _key(*pair) not in store.keys]
    total = len(run.prompts) * run.n
    task = bar.add_task("scoring", total=total, completed=total - len(left))
    if not left:
        return
    scorer = Scorer(run.scorer, max_tokens=run.max_tokens, batch=64)
    texts = [run.prompts[number]["prompt"] for number, _ in left]
    files = [image_path(run, number, image) for number, image in left]
    done = 0
    for found in scorer.batches(files, task=list(run.tasks), prompt=texts):
        keys = [_key(*pair) for pair in left[done : done + len(found)]]
        store.add(
            {"key": key, "scores": {name: asdict(score) for name, score in by_task.items()}}
            for key, by_task in zip(keys, found, strict=True)
        )
        done += len(found)
        bar.update(task, advance=len(found))


def pick(run: BestOfN, number: int, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The best image of one text; it is linked into ``best`` and a contact sheet is drawn."""
    found = [scores[_key(number, image)]["scores"] for image in range(run.n)]
    by_task = {task: [one[task]["score"] for one in found] for task in run.tasks}
    choice = run.choose(by_task)
    paths = [image_path(run, number, image) for image in range(run.n)]
    if choice.best is not None:
        best = prompt_folder(run.out / "best", number, run.prompts[number]) / sample_name(0)
        unfinished = best.with_suffix(".part")
        unfinished.write_bytes(paths[choice.best].read_bytes())
        os.replace(unfinished, best)
    write_sheet(run.out / "sheets" / f"{number:05d}.png", run.prompts[number]["prompt"], paths, by_task, choice)
    return {
        "prompt": run.prompts[number]["prompt"],
        "best": choice.best,
        "seed": None if choice.best is None else run.seed + choice.best,
        "ranking": list(choice.ranking),
        "scores": by_task,
        "refused": {
            image: {task: one[task]["status"] for task in run.tasks if one[task]["status"] != "ok"}
            for image, one in enumerate(found)
            if image in choice.without
        },
    }


def image_path(run: BestOfN, number: int, image: int) -> Path:
    """Where an image of a text lies."""
    return run.out / "candidates" / f"{number:05d}" / "samples" / sample_name(image)


def _candidates(run: BestOfN) -> Iterator[tuple[int, int]]:
    return ((number, image) for number in range(len(run.prompts)) for image in range(run.n))


def _key(number: int, image: int) -> str:
    return f"{number:05d}/{image:05d}"


def _save(image: Image.Image, path: Path, known: Mapping[str, str]) -> None:
    """A PNG that is there as a whole or not at all, and says what it was made from."""
    about = PngInfo()
    for name, text in known.items():
        about.add_itxt(name, text)
    unfinished = path.with_suffix(".part")
    image.convert("RGB").save(unfinished, "PNG", pnginfo=about)
    os.replace(unfinished, path)


def _settings(run: BestOfN) -> dict[str, Any]:
    """What images and scores depend on; how the best is chosen among them is none of it."""
    scorer = {name: value for name, value in asdict(run.scorer).items() if name in ("model", "kind", "dtype")}
    return {
        "prompts": [dict(one) for one in run.prompts],
        "generator": asdict(run.generator),
        "scorer": scorer,
        "tasks": sorted(run.tasks),
        "max_tokens": run.max_tokens,
        "seed": run.seed,
    }


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
