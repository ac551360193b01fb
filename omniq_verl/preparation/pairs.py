"""Choose pairs of images to compare, and their order; used by ``data_prep/comparisons.py``."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omniq_verl.data.prepared import BadRow, image_kind, named_errors, open_prepared, row_info
from omniq_verl.data.rows import Row
from omniq_verl.preparation.label_tables import LabelFileError
from omniq_verl.preparation.readers import draw
from omniq_verl.preparation.shards import Planned
from omniq_verl.preparation.stored_images import StoredImage
from omniq_verl.tasks import comparison_task, task_of

_ROUNDING = 1e-9
_COLUMNS = ("data_source", "images", "extra_info")


@dataclass(frozen=True)
class Rated:
    """A prepared row with a score."""

    row_id: str
    source: str
    task: str
    split: str
    score: float
    """Score on the task's scale; higher is better."""
    ref: Path | StoredImage


@dataclass(frozen=True)
class Pair:
    """Two images in the order in which they are shown, and which is better."""

    images: tuple[str, str]
    """Names of Image A and Image B."""
    refs: tuple[Path | StoredImage, Path | StoredImage]
    choice: str
    """The label, ``first`` or ``second``."""
    reference: tuple[str, Path] | None = None
    """Name and file of the low-quality image from which both were made."""
    scores: tuple[float, float] | None = None

    def turned(self) -> "Pair":
        """Return the same pair with A and B swapped."""
        other = "second" if self.choice == "first" else "first"
        scores = self.scores and self.scores[::-1]
        return replace(self, images=self.images[::-1], refs=self.refs[::-1], choice=other, scores=scores)

    def planned(self, name: str, row_id: str, split: str) -> Planned:
        """Return the pair as a row of the data set ``name``.

        Raises:
            ValueError: a name cannot be stored in a row.
        """
        shown = [*([self.reference] if self.reference else []), *zip(self.images, self.refs, strict=True)]
        details: dict[str, Any] = {"image_a": self.images[0], "image_b": self.images[1]}
        if self.reference:
            details["reference"] = self.reference[0]
        if self.scores:
            details |= {"score_a": self.scores[0], "score_b": self.scores[1]}
        task = comparison_task(self.reference is not None).name
        row = Row(name, row_id, task, split, choice=self.choice, details=details)
        first, *others = (ref for _, ref in shown)
        return Planned(row, first, ", ".join(image for image, _ in shown), others=tuple(others))


def read_rated(files: Sequence[Path]) -> list[Rated]:
    """Read all rows of prepared files, without their images.

    Raises:
        LabelFileError: a file is not prepared, its rows have no score, or two rows have the same id or different tasks.
    """
    found = [rated for file in files for rated in _rated(file)]
    _reject_others(found)
    return found


def _rated(file: Path) -> Iterator[Rated]:
    first = 0  # row index of the first row in the row group
    try:
        with open_prepared(file, _COLUMNS) as opened:
            embedded = image_kind(opened.schema_arrow.field("images").type) == "bytes"
            columns = ["data_source", "extra_info", *([] if embedded else ["images"])]
            for group in range(opened.num_row_groups):
                with named_errors(file):
                    rows = opened.read_row_group(group, columns).to_pylist()
                yield from (_of_row(file, first, group, number, row) for number, row in enumerate(rows))
                first += len(rows)
    except LabelFileError:
        raise
    except ValueError as error:
        raise LabelFileError(str(error)) from None


def _of_row(file: Path, first: int, group: int, number: int, row: dict[str, Any]) -> Rated:
    try:
        info = row_info(row)
        fault = task_of(info).label_fault({"score": info["score"]}) if info["score"] is not None else None
    except BadRow as error:
        raise LabelFileError(f"{file}, row {first + number}: {error}") from None
    if fault:
        raise LabelFileError(f"{file}, row {first + number}: extra_info.score: {fault}. Fix: correct or drop the row")
    if info["score"] is None:
        raise LabelFileError(f"{file}: {info['id']} has no score. Fix: give rows of a task that asks for one")
    ref = StoredImage(file.resolve(), group, number)
    if "images" in row:
        ref = Path(row["images"][0]["image"])
    return Rated(str(info["id"]), info["data_source"], info["task"], info["split"] or "train", info["score"], ref)


def _reject_others(found: Sequence[Rated]) -> None:
    seen: set[str] = set()
    for one in found:
        if (one.source, one.task) != (found[0].source, found[0].task):
            raise LabelFileError(
                f"scores of {found[0].source} ({found[0].task}) and of {one.source} ({one.task}) cannot be compared."
                " Fix: make pairs of each, and combine them with omniq data mix"
            )
        if one.row_id in seen:
            raise LabelFileError(f"{one.row_id} occurs twice. Fix: name each prepared file once")
        seen.add(one.row_id)


def choose_pairs(rated: Iterable[Rated], margin: float, per_image: int, seed: int) -> list[Pair]:
    """Choose pairs of images whose scores differ by at least ``margin``, in random order. The better one is Image A.

    Every image draws ``per_image`` partners among all that differ enough. A pair drawn from both sides counts once.
    The result depends only on the rows and the seed, not on the rows' order.

    Args:
        rated: rows of one split.
        margin: smallest difference in units of the scores, above 0.
        per_image: partners per image.
        seed: seed of all draws.
    """
    ordered = sorted(rated, key=lambda one: (one.score, one.row_id))
    scores = [one.score for one in ordered]
    reach = margin - _ROUNDING  # 1.00 and 1.14 differ by slightly less than 0.14 in floating point
    found: dict[tuple[str, str], Pair] = {}
    for one in ordered:
        below, above = bisect_right(scores, one.score - reach), bisect_left(scores, one.score + reach)
        choices = below + len(ordered) - above
        for turn in range(per_image if choices else 0):
            ref = int(draw(seed, "partner", one.row_id, str(turn)) * choices)
            other = ordered[ref if ref < below else ref - below + above]
            worse, better = sorted((one, other), key=lambda image: image.score)
            found[better.row_id, worse.row_id] = _pair(better, worse)
    return [found[ids] for ids in sorted(found, key=lambda ids: (draw(seed, "order", *ids), ids))]


def _pair(better: Rated, worse: Rated) -> Pair:
    return Pair(
        (better.row_id, worse.row_id),
        (better.ref, worse.ref),
        "first",
        scores=(round(better.score, 6), round(worse.score, 6)),
    )


def balanced(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Return the same pairs in the same order, with the better image as Image A in a randomly drawn half of them."""
    names = [sorted(pair.images) for pair in pairs]
    ranked = sorted(range(len(pairs)), key=lambda ref: (draw(seed, "side", *names[ref]), names[ref], ref))
    wanted = {ref: ("first", "second")[rank % 2] for rank, ref in enumerate(ranked)}
    return [pair if pair.choice == wanted[ref] else pair.turned() for ref, pair in enumerate(pairs)]
