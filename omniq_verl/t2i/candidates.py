"""Shared by best of n and reflection: draw and score each image once, save it immediately, and pick the best."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from xxhash import xxh3_128

from omniq_verl.data.files import atomic_path, whole_text
from omniq_verl.generation.provenance import provenance, record_start, write_provenance
from omniq_verl.generation.spec import EngineSpec
from omniq_verl.generation.store import OtherConfig, Store, differences, read_store
from omniq_verl.scoring.scorer import asked_tasks
from omniq_verl.t2i.generator import Generator, GeneratorSpec
from omniq_verl.t2i.geneval import prompt_folder, sample_name
from omniq_verl.t2i.image_scorers import ImageScorers
from omniq_verl.t2i.outside_selector import choose_by
from omniq_verl.t2i.ranking import Choice, choose_in_order, choose_weighted
from omniq_verl.tasks import check_text, outside_marks


@dataclass(frozen=True)
class GuidedRun:
    """Settings of a run that draws images for texts and keeps the best."""

    prompts: Sequence[Mapping[str, Any]]
    """Each has its text under ``prompt``; all other keys are written to GenEval's ``metadata.jsonl``."""
    out: Path
    """The run's folder. An interrupted run resumes."""
    generator: GeneratorSpec
    scorer: EngineSpec | None
    """The reasoning model; None: RALI scores alone."""
    weights: Mapping[str, float] = field(default_factory=lambda: {"alignment": 1.0})
    """Weights by task; images are ranked by the weighted mean of their scores. A task with weight 0 is not scored."""
    order: Sequence[str] = ()
    """Tasks, most important first: images are ranked lexicographically instead of by weights."""
    within: float = 0.0
    """With ``order``: scores this close to the best count as equal to it."""
    selector: str | None = None
    """Custom ``package.module:function`` that ranks the images by the scores of all tasks with a weight; see
    ``omniq_verl.t2i.outside_selector``. None: use weights or order."""
    batch: int = 4
    """Images drawn at once."""
    max_tokens: int = 1024
    seed: int = 0
    """Image number i of every text has the seed ``seed + i``."""
    scale: str | None = None
    """Scale of all scores, by its name in ``omniq_verl.tasks.SCALES``: that on which the scorer was trained; None: each
    task's own."""
    limit: int | None = None
    """Number of texts taken from their file; None: all. Recorded only, not applied here."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.seed < 0 or not self.prompts:
            raise ValueError("batch must be >= 1, seed >= 0, and prompts must not be empty")
        for one in self.prompts:
            if not (isinstance(one.get("prompt"), str) and one["prompt"].strip()):
                raise ValueError(f"every prompt needs its text under 'prompt', got {dict(one)}")
            check_text(one["prompt"], f"the prompt {one['prompt'][:60]!r}")
        if self.order and self.selector:
            raise ValueError("order has no effect with a selector. Fix: remove one of them")
        names = self.order or self.weights or ["alignment"]
        self._by_scores({name: [1.0] for name in names})  # validate before anything is drawn
        if self.selector:
            choose_by(self.selector, {name: [1.0, None, 2.0] for name in self.tasks})
        if without := [task.name for task in asked_tasks(self.tasks, self.scale) if task.scale is None]:
            raise ValueError(f"{without[0]} gives no score to choose by")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that every image is scored for."""
        return tuple(self.order) or tuple(self.used_weights)

    @property
    def used_weights(self) -> dict[str, float]:
        """The weights above 0."""
        return {task: weight for task, weight in self.weights.items() if weight > 0}

    def choose(self, scores: Mapping[str, Sequence[float | None]]) -> Choice:
        """Pick the best image of a text.

        Raises:
            ValueError: the weights or the order are invalid, or the selector fails.
        """
        return choose_by(self.selector, scores) if self.selector else self._by_scores(scores)

    def _by_scores(self, scores: Mapping[str, Sequence[float | None]]) -> Choice:
        if self.order:
            return choose_in_order(scores, self.order, self.within)
        return choose_weighted(scores, self.weights)

    def drawing(self, candidate: "Candidate") -> dict[str, str]:
        """All that an image depends on, as texts for its file."""
        found = {"prompt": candidate.text, "seed": candidate.seed, **asdict(self.generator)}
        return {name: whole_text(str(value)) for name, value in found.items()}

    def settings(self) -> dict[str, Any]:
        """Settings that images and scores depend on. How the best is chosen is not among them."""
        marks = outside_marks(self.tasks)
        return {
            "prompts": [dict(one) for one in self.prompts],
            "generator": asdict(self.generator),
            "scorer": self.scorer and self.scorer.identity(),
            "tasks": sorted(self.tasks),
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            **({"outside_tasks": marks} if marks else {}),
            **({"scale": self.scale} if self.scale else {}),
        }


def write_conditions(run: GuidedRun) -> None:
    """Write ``provenance.json`` into the run's folder."""
    settings = run.settings()
    texts = "".join(f"{one['prompt']}\n" for one in run.prompts).encode(errors="surrogatepass")
    known = {
        "texts": {"used": len(run.prompts), "limit": run.limit, "xxh128": xxh3_128(texts).hexdigest()},
        "chosen_by": {"weights": run.used_weights, "order": list(run.order), "within": run.within}
        | ({"selector": run.selector} if run.selector else {}),
        **{name: settings[name] for name in settings if name not in ("prompts", "scorer", "seed")},
    }
    starts = record_start(run.out)
    write_provenance(run.out, provenance(starts, model=settings["scorer"], seed=run.seed, **known))


@dataclass(frozen=True)
class Candidate:
    """One candidate image of a text."""

    number: int
    """Index of the text."""
    image: int
    text: str
    """Text it is drawn from."""
    seed: int

    @property
    def key(self) -> str:
        return f"{self.number:05d}/{self.image:05d}"


class Records(Store):
    """A store whose records are also available by key."""

    def __init__(self, folder: Path, config: Mapping[str, Any], run: Path | None = None):
        super().__init__(folder, config, run)
        self.found = {record["key"]: record for record in read_store(folder)}

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records to the store and to ``found``."""
        records = list(records)
        super().add(records)
        for record in records:
            self.found.setdefault(record["key"], dict(record))


def check_drawn(run: GuidedRun, drawings: Iterable[Candidate]) -> None:
    """Check that the images that exist were drawn as this run would draw them.

    The stores of scores cannot tell, because images are drawn before anything is scored.

    Raises:
        OtherConfig: an image has another prompt, seed or generator, or does not name its prompt and seed.
        ValueError: a file cannot be read.
    """
    for candidate in drawings:
        path = image_path(run, candidate)
        if not path.is_file():
            continue
        before, now = _texts_in(path), run.drawing(candidate)
        # Images of older versions name only their prompt and seed.
        known = [name for name in now if name in before or name in ("prompt", "seed")]
        if named := differences({name: before.get(name) for name in known}, {name: now[name] for name in known}):
            raise OtherConfig(
                f"{path} was drawn with other settings ({named}). Fix: give another --out, or delete {run.out}"
            )


def _texts_in(path: Path) -> dict[Any, Any]:
    try:
        with Image.open(path) as image:  # reads only what comes before the pixels
            return image.info
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Fix: delete it, and it is drawn again") from error


def draw_missing(
    run: GuidedRun, drawings: Sequence[Candidate], generator: Callable[[], Generator], done: Callable[[int], Any]
) -> None:
    """Draw the images that do not exist yet, and check those that do.

    Args:
        run: settings of the run.
        drawings: all images that should exist.
        generator: called only if there is something to draw.
        done: progress callback; receives the number of further finished images.

    Raises:
        OtherConfig: an image that exists was drawn with other settings.
    """
    check_drawn(run, drawings)
    missing = [candidate for candidate in drawings if not image_path(run, candidate).is_file()]
    done(len(drawings) - len(missing))
    for some in _batches(missing, run.batch):
        for number in {candidate.number for candidate in some}:
            prompt_folder(run.out / "candidates", number, run.prompts[number])
        images = generator().draw([candidate.text for candidate in some], [candidate.seed for candidate in some])
        for candidate, image in zip(some, images, strict=True):
            _save(image, image_path(run, candidate), run.drawing(candidate))
        done(len(some))


def score_missing(
    run: GuidedRun, drawings: Sequence[Candidate], scores: Store, scorers: ImageScorers, done: Callable[[int], Any]
) -> None:
    """Score the images that have no score yet, always against the user's own text.

    Args:
        run: settings of the run.
        drawings: all images that should have scores.
        scores: store for the scores.
        scorers: the models that score.
        done: progress callback; receives the number of further finished images.
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
    """Copy the best image of one text into ``best``; returns the choice and its ``picks.jsonl`` record.

    Args:
        run: settings of the run.
        drawings: all images of the text, by image number.
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
    """Copy an image as the only sample of its text into a folder with GenEval's layout; None removes the sample."""
    copy = prompt_folder(folder, number, prompt) / sample_name(0)
    if image is None:
        copy.unlink(missing_ok=True)
        return
    with atomic_path(copy) as unfinished:
        unfinished.write_bytes(image.read_bytes())


def image_path(run: GuidedRun, candidate: Candidate) -> Path:
    """Path of a candidate image."""
    return candidate_path(run.out, candidate.number, candidate.image)


def candidate_path(out: Path, number: int, image: int) -> Path:
    """Path of a candidate image, in the folder of any run."""
    return out / "candidates" / f"{number:05d}" / "samples" / sample_name(image)


def _batches(drawings: Sequence[Candidate], size: int) -> Iterator[Sequence[Candidate]]:
    return (drawings[first : first + size] for first in range(0, len(drawings), size))


def _save(image: Image.Image, path: Path, known: Mapping[str, str]) -> None:
    """Write a PNG atomically, with these texts in its text chunks."""
    about = PngInfo()
    for name, text in known.items():
        about.add_itxt(name, text)
    with atomic_path(path) as unfinished:
        image.convert("RGB").save(unfinished, "PNG", pnginfo=about)
