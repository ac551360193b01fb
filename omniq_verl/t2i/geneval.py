"""GenEval (Ghosh et al. 2023): its image folders, results and table. Its detector is not included.

Prompts are `evaluation_metadata.jsonl` (553 lines: ``tag``, ``prompt``, ``include`` and, in counting, ``exclude``).
Images go into ``00000/samples/00000.png``, next to ``00000/metadata.jsonl``, which holds the prompt's own line.
GenEval's scorer writes a line per image: ``filename``, ``tag``, ``prompt``, ``correct``, ``reason``, ``metadata`` and
``details``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniq_verl.data.files import replace_text
from omniq_verl.data.text_files import BLANKS, LabelFileError, json_lines
from omniq_verl.tasks.outside_text import FIX, text_fault

TAGS = {
    "single_object": "Single",
    "two_object": "Two",
    "counting": "Counting",
    "colors": "Color",
    "position": "Position",
    "color_attr": "Attribution",
}
"""Tags of prompts and their names in OmniQuality-R's table 5, in its column order."""
BROKEN_KERNEL = ("ms_deformable_im2col_cuda", "no kernel image is available")
"""Printed by the scorer if its detector was built for another GPU; the scorer then continues with wrong results."""
_FEWEST_SINGLE = 0.3
"""Smallest plausible share of correct single objects; every generator in table 5 has more than 0.9."""


class BadGenEval(ValueError):
    """A file or folder does not have GenEval's form; the message names it and the fix."""


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Read the prompts, in order.

    Raises:
        BadGenEval: the file cannot be read, or a line is not a GenEval prompt.
    """
    prompts = []
    for number, line in _lines(path):
        prompt, tag = line.get("prompt"), line.get("tag")
        if not (isinstance(prompt, str) and prompt.strip(BLANKS).strip() and isinstance(tag, str) and tag in TAGS):
            raise BadGenEval(
                f"{path}, line {number}: not a GenEval prompt; it needs 'prompt' and a 'tag' out of {', '.join(TAGS)}"
            )
        if fault := text_fault(line["prompt"]):
            raise BadGenEval(f"{path}, line {number}: its prompt {fault}. Fix: {FIX}")
        prompts.append(line)
    if not prompts:
        raise BadGenEval(f"{path} has no prompts")
    return prompts


def prompt_folder(out: Path, number: int, prompt: Mapping[str, Any]) -> Path:
    """Create the folder of a prompt, with its ``metadata.jsonl``; returns the folder for its images."""
    samples = out / f"{number:05d}" / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    replace_text(samples.parent / "metadata.jsonl", json.dumps(prompt) + "\n")
    return samples


def sample_name(number: int) -> str:
    """File name of an image, as GenEval's scorer expects it."""
    return f"{number:05d}.png"


@dataclass(frozen=True)
class GenEval:
    """Results of GenEval's scorer."""

    by_tag: dict[str, float]
    """Share of correct images by tag."""
    overall: float
    """Mean of the tags' shares, as in GenEval's ``summary_scores.py``; the mean over all images would differ."""
    images: int
    notes: tuple[str, ...] = ()
    """Reasons to doubt the figures."""

    def row(self) -> list[float]:
        """Figures in the order of table 5: overall, then the tags."""
        return [self.overall, *(self.by_tag[tag] for tag in TAGS)]


def read_results(path: Path, prompts: Sequence[Mapping[str, Any]] | None = None) -> GenEval:
    """Compute the table from a ``results.jsonl``.

    Args:
        path: the scorer's results.
        prompts: from ``read_prompts``; used to check that every prompt has the same number of images.

    Raises:
        BadGenEval: the file cannot be read, a line is not a result, an image occurs twice, or a tag has no image.
    """
    seen: dict[str, bool] = {}
    of_tag: dict[str, list[bool]] = {tag: [] for tag in TAGS}
    of_prompt: dict[str, int] = {}
    for number, line in _lines(path):
        name, tag, correct = line.get("filename"), line.get("tag"), line.get("correct")
        if not (isinstance(name, str) and isinstance(tag, str) and tag in TAGS and isinstance(correct, bool)):
            raise BadGenEval(
                f"{path}, line {number}: not a result: filename, tag or correct (true or false) is missing"
            )
        if name in seen:
            raise BadGenEval(f"{path}, line {number}: {name} occurs twice. Fix: run the scorer once, into a new file")
        seen[name] = correct
        of_tag[tag].append(correct)
        of_prompt[str(line.get("prompt"))] = of_prompt.get(str(line.get("prompt")), 0) + 1
    if missing := [tag for tag, found in of_tag.items() if not found]:
        raise BadGenEval(f"{path} has no image of {', '.join(missing)}, so the mean over the six tags is undefined")
    by_tag = {tag: sum(found) / len(found) for tag, found in of_tag.items()}
    notes = (*_warnings(by_tag), *_incomplete(of_prompt, prompts))
    return GenEval(by_tag, sum(by_tag.values()) / len(by_tag), len(seen), notes)


def _warnings(by_tag: Mapping[str, float]) -> Iterator[str]:
    if by_tag["single_object"] < _FEWEST_SINGLE:
        yield (
            f"only {by_tag['single_object']:.0%} of the single objects were found: either the images or the detector is"
            " broken (its CUDA kernel may be built for another GPU: look for"
            f" {BROKEN_KERNEL[0]!r} in the scorer's log)"
        )


def _incomplete(of_prompt: Mapping[str, int], prompts: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    if prompts is None:
        return
    asked: dict[str, int] = {}
    for prompt in prompts:  # some prompts occur twice
        asked[prompt["prompt"]] = asked.get(prompt["prompt"], 0) + 1
    most = max((-(-number // asked.get(text, 1)) for text, number in of_prompt.items()), default=0)
    if fewer := [text for text, times in asked.items() if of_prompt.get(text, 0) < most * times]:
        yield f"{len(fewer)} of {len(asked)} prompts have fewer than {most} images, the first {fewer[0]!r}"
    if unknown := set(of_prompt) - set(asked):
        yield f"{len(unknown)} prompts are not in GenEval's list, e.g. {sorted(unknown)[0]!r}"


def check_scorer_log(text: str) -> None:
    """Check the log of GenEval's scorer before its results are used.

    Raises:
        BadGenEval: its detector's kernel does not run on the GPU; the scorer then continues with wrong results.
    """
    for line in text.split("\n"):
        if any(mark in line for mark in BROKEN_KERNEL):
            raise BadGenEval(
                f"the detector did not run ({line.strip()[:200]}), so the results are wrong. Fix: build mmcv for"
                " this GPU (on an H100: TORCH_CUDA_ARCH_LIST=9.0 with CUDA 12.1 or later)"
            )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from json_lines(path)
    except LabelFileError as error:
        raise BadGenEval(str(error)) from error
