"""What best of n and reflection share: images drawn and scored, each once and kept at once, and the best of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from xxhash import xxh3_128

from omniq_verl.data.files import atomic_path
from omniq_verl.generation.provenance import provenance, record_start, write_provenance
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import Store, read_store
from omniq_verl.scoring.scorer import asked_tasks
from omniq_verl.t2i.generator import Generator, GeneratorSpec
from omniq_verl.t2i.geneval import prompt_folder, sample_name
from omniq_verl.t2i.image_scorers import ImageScorers
from omniq_verl.t2i.outside_selector import choose_by
from omniq_verl.t2i.ranking import Choice, choose_in_order, choose_weighted
from omniq_verl.tasks import check_text, outside_marks


@dataclass(frozen=True)
class GuidedRun:
    """A run that draws images for texts and keeps the best."""

    prompts: Sequence[Mapping[str, Any]]
    """Each with ``prompt``, its text; all else is kept beside its images (GenEval's ``metadata.jsonl``)."""
    out: Path
    """The run's folder: goes on where it stopped."""
    generator: GeneratorSpec
    scorer: EngineSpec | None
    """None: the RALI scores alone."""
    weights: Mapping[str, float] = field(default_factory=lambda: {"alignment": 1.0})
    """By task: what the images are ranked by, as a weighted mean."""
    order: Sequence[str] = ()
    """Tasks, the most important first: ranked in order instead of by weights."""
    within: float = 0.0
    """In order: scores this close to the best count as equal to it."""
    selector: str | None = None
    """``package.module:function`` of the user's own that ranks the images by the scores of all tasks that have a
    weight; see ``omniq_verl.t2i.outside_selector``. None: weights or order."""
    batch: int = 4
    """Images drawn at a time."""
    max_tokens: int = 1024
    seed: int = 0
    """Image number i of every text has the seed ``seed + i``."""
    limit: int | None = None
    """How many texts of their file there are; None: all. Recorded, not applied."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.seed < 0 or not self.prompts:
            raise ValueError("batch from 1, seed from 0, and at least one prompt")
        for one in self.prompts:
            if not (isinstance(one.get("prompt"), str) and one["prompt"].strip()):
                raise ValueError(f"every prompt needs its text under 'prompt', got {dict(one)}")
            check_text(one["prompt"], f"the prompt {one['prompt'][:60]!r}")
        if self.order and self.selector:
            raise ValueError("order has no effect with a selector. Fix: leave out either")
        names = self.order or self.weights or ["alignment"]
        self._by_scores({name: [1.0] for name in names})  # weights and order, before anything is drawn
        if self.selector:
            choose_by(self.selector, {name: [1.0, None, 2.0] for name in self.tasks})
        if without := [task.name for task in asked_tasks(self.tasks) if task.scale is None]:
            raise ValueError(f"{without[0]} gives no score to choose by")

    @property
    def tasks(self) -> tuple[str, ...]:
        """What every image is scored for."""
        return tuple(self.order) or tuple(task for task, weight in self.weights.items() if weight > 0)

    def choose(self, scores: Mapping[str, Sequence[float | None]]) -> Choice:
        """The best of a text's images.

        Raises:
            ValueError: the weights or the order do not fit together, or the selector fails.
        """
        return choose_by(self.selector, scores) if self.selector else self._by_scores(scores)

    def _by_scores(self, scores: Mapping[str, Sequence[float | None]]) -> Choice:
        if self.order:
            return choose_in_order(scores, self.order, self.within)
        return choose_weighted(scores, self.weights)

    def settings(self) -> dict[str, Any]:
        """What images and scores depend on; how the best is chosen among them is none of it."""
        marks = outside_marks(self.tasks)
        return {
            "prompts": [dict(one) for one in self.prompts],
            "generator": asdict(self.generator),
            "scorer": self.scorer and self.scorer.identity(),
            "tasks": sorted(self.tasks),
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            **({"outside_tasks": marks} if marks else {}),
        }


def write_conditions(run: GuidedRun) -> None:
    """Write ``provenance.json`` into the run's folder."""
    settings = run.settings()
    texts = "".join(f"{one['prompt']}\n" for one in run.prompts).encode(errors="surrogatepass")
    known = {
        "texts": {"used": len(run.prompts), "limit": run.limit, "xxh128": xxh3_128(texts).hexdigest()},
        "chosen_by": {"weights": dict(run.weights), "order": list(run.order), "within": run.within}
        | ({"selector": run.selector} if run.selector else {}),
        **{name: settings[name] for name in settings if name not in ("prompts", "scorer", "seed")},
    }
    starts = record_start(run.out)
    write_provenance(run.out, provenance(starts, model=settings["scorer"], seed=run.seed, **known))


@dataclass(frozen=True)
class Candidate:
    """One image of a text."""

    number: int
    """Of the text."""
    image: int
    text: str
    """What it is drawn from."""
    seed: int

    @property
    def key(self) -> str:
        return f"{self.number:05d}/{self.image:05d}"


class Records(Store):
    """A store with its records at hand, by key."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        super().__init__(folder, config)
        self.found = {record["key"]: record for record in read_store(folder)}

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """As of the store."""
        records = list(records)
        super().add(records)
        for record in records:
            self.found.setdefault(record["key"], dict(record))


def draw_missing(
    run: GuidedRun, drawings: Sequence[Candidate], generator: Callable[[], Generator], done: Callable[[int], Any]
) -> None:
    """Draw the images that are not there yet.

    Args:
        run: its settings.
        drawings: all that there should be.
        generator: called where there is something to draw.
        done: told how many more there are.
    """
    missing = [candidate for candidate in drawings if not image_path(run, candidate).is_file()]
    done(len(drawings) - len(missing))
    for some in _batches(missing, run.batch):
        for number in {candidate.number for candidate in some}:
            prompt_folder(run.out / "candidates", number, run.prompts[number])
        images = generator().draw([candidate.text for candidate in some], [candidate.seed for candidate in some])
        for candidate, image in zip(some, images, strict=True):
            _save(image, image_path(run, candidate), {"prompt": candidate.text, "seed": str(candidate.seed)})
        done(len(some))


def score_missing(
    run: GuidedRun, drawings: Sequence[Candidate], scores: Store, scorers: ImageScorers, done: Callable[[int], Any]
) -> None:
    """Score the images that have no score yet, as what the user's own text asks for.

    Args:
        run: its settings.
        drawings: all that should have scores.
        scores: where they are kept.
        judges: who scores.
        done: told how many more there are.
    """
    left = [candidate for candidate in drawings if candidate.key not in scores.keys]
    done(len(drawings) - len(left))
    if not left:
        return
    texts = [run.prompts[candidate.number]["prompt"] for candidate in left]
    waiting = iter(left)
    for found in scorers.batches([image_path(run, candidate) for candidate in left], texts):
        scores.add(
            {"key": next(waiting).key, "scores": {name: asdict(score) for name, score in by_task.items()}}
            for by_task in found
        )
        done(len(found))


def pick(
    run: GuidedRun, drawings: Sequence[Candidate], scores: Mapping[str, Mapping[str, Any]]
) -> tuple[Choice, dict[str, Any]]:
    """The best image of one text, copied into ``best``; the choice, and what ``picks.jsonl`` says of it.

    Args:
        run: its settings.
        drawings: all of the text, in the order of their numbers.
        scores: records by key.
    """
    found = [scores[candidate.key]["scores"] for candidate in drawings]
    by_task = {task: [one[task]["score"] for one in found] for task in run.tasks}
    choice, prompt = run.choose(by_task), run.prompts[drawings[0].number]
    best = None if choice.best is None else image_path(run, drawings[choice.best])
    keep_sample(best, run.out / "best", drawings[0].number, prompt)
    return choice, {
        "prompt": prompt["prompt"],
        "best": choice.best,
        "seed": None if choice.best is None else drawings[choice.best].seed,
        "ranking": list(choice.ranking),
        "scores": by_task,
        "rejected": {
            image: {task: one[task]["status"] for task in run.tasks if one[task]["status"] != "ok"}
            for image, one in enumerate(found)
            if image in choice.without
        },
    }


def keep_sample(image: Path | None, folder: Path, number: int, prompt: Mapping[str, Any]) -> None:
    """Copy an image, the only one of its text, into a folder of GenEval's form; None: the text has none (any more)."""
    copy = prompt_folder(folder, number, prompt) / sample_name(0)
    if image is None:
        copy.unlink(missing_ok=True)
        return
    with atomic_path(copy) as unfinished:
        unfinished.write_bytes(image.read_bytes())


def image_path(run: GuidedRun, candidate: Candidate) -> Path:
    """Where an image of a text lies."""
    return candidate_path(run.out, candidate.number, candidate.image)


def candidate_path(out: Path, number: int, image: int) -> Path:
    """Likewise, in the folder of any run."""
    return out / "candidates" / f"{number:05d}" / "samples" / sample_name(image)


def _batches(drawings: Sequence[Candidate], size: int) -> Iterator[Sequence[Candidate]]:
    return (drawings[first : first + size] for first in range(0, len(drawings), size))


def _save(image: Image.Image, path: Path, known: Mapping[str, str]) -> None:
    """A PNG that is there as a whole or not at all, and says what it was made from."""
    about = PngInfo()
    for name, text in known.items():
        about.add_itxt(name, text)
    with atomic_path(path) as unfinished:
        image.convert("RGB").save(unfinished, "PNG", pnginfo=about)
