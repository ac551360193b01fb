"""lmms-eval tasks for prepared files: our question and parser, and PLCC and SRCC over the images with a score.

Source: lmms-eval 0.7.3 (github.com/EvolvingLMMs-Lab/lmms-eval). A task is a YAML file with ``dataset_path``,
``doc_to_visual``, ``doc_to_text``, ``doc_to_messages``, ``doc_to_target``, ``process_results`` and ``metric_list``
(``api/task.py``, ``TaskConfig``). ``!function utils.name`` loads a function from the file ``utils.py`` next to it
(``utils.py``, ``import_function``).
"""

import glob
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omniq_verl.adapters.benchmark_rows import check_benchmark, label_of, read_score
from omniq_verl.data.files import replace_text
from omniq_verl.data.images import decode_image
from omniq_verl.data.row_refs import expanded, image_bytes
from omniq_verl.evaluation.correlations import correlations
from omniq_verl.tasks import IMAGE_PLACEHOLDER

_UTILS = '''"""The functions that the tasks of this folder use."""

from omniq_verl.adapters.lmms_eval_tasks import (
    doc_to_messages,
    doc_to_target,
    doc_to_text,
    doc_to_visual,
    parsed,
    plcc,
    process_results,
    srcc,
)
'''
_FUNCTIONS = ("doc_to_visual", "doc_to_text", "doc_to_messages", "doc_to_target", "process_results")
_METRICS = ("plcc", "srcc", "parsed")


def write_tasks(files: Sequence[Path], folder: Path, max_tokens: int = 1024) -> list[str]:
    """Write one task per file, ``omniq_<name of its folder>_<name of the file>``, and the module they use.

    Run them with ``python -m lmms_eval --include_path FOLDER --tasks NAME --model ...``.

    Args:
        files: prepared files; every row has one image and a score, and all rows of a file ask the same task.
        folder: where the tasks are written; it is created.
        max_tokens: most tokens of an answer.

    Returns:
        The names of the tasks, in the order of the files.

    Raises:
        ValueError: a file cannot be used (the message names it), or two files give the same name.
    """
    tasks: dict[str, Path] = {}
    for file in map(Path.resolve, expanded(files)):
        check_benchmark(file)
        if "::" in str(file):
            raise ValueError(f"{file}: datasets takes :: for a chain of addresses. Fix: rename the file or folder")
        name = re.sub(r"\W+", "_", f"omniq_{file.parent.name}_{file.stem}", flags=re.ASCII)
        if name in tasks:
            raise ValueError(f"{tasks[name]} and {file} give the same task {name}. Fix: rename one of them")
        tasks[name] = file
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "utils.py", _UTILS)
    for name, file in tasks.items():
        replace_text(folder / f"{name}.yaml", task_yaml(name, file, max_tokens))
    return list(tasks)


def task_yaml(name: str, file: Path, max_tokens: int) -> str:
    """Return the text of a task file. ``reasoning_tags: none`` gives our parser the whole answer."""
    import yaml

    config = {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": glob.escape(str(file))}},  # datasets treats it as a pattern
        "test_split": "test",
        "output_type": "generate_until",
        "reasoning_tags": "none",
        "generation_kwargs": {"max_new_tokens": max_tokens, "temperature": 0, "do_sample": False},
    }
    functions = "".join(f"{one}: !function utils.{one}\n" for one in _FUNCTIONS)
    metrics = "".join(
        f"  - metric: {one}\n    aggregation: !function utils.{one}\n    higher_is_better: true\n" for one in _METRICS
    )
    return f"{yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}{functions}metric_list:\n{metrics}"


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """Return the images of a row as upright RGB PIL images.

    Raises:
        BadImage: an image is missing or broken.
    """
    return [decode_image(data) for data in image_bytes(doc)]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the row's question without the image placeholder, with any system turn before it."""
    turns = [turn["content"].replace(IMAGE_PLACEHOLDER, "").strip() for turn in doc["prompt"]]
    return "\n\n".join(turns)


def doc_to_messages(
    doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the row's turns in the form of lmms-eval's chat models, with each image in place of its placeholder."""
    images = iter(doc_to_visual(doc))
    return [{"role": turn["role"], "content": _parts(turn["content"], images)} for turn in doc["prompt"]]


def _parts(content: str, images: Iterator[Any]) -> list[dict[str, Any]]:
    segments = [one for one in re.split(f"({re.escape(IMAGE_PLACEHOLDER)})", content) if one]
    return [
        {"type": "image", "url": next(images)} if one == IMAGE_PLACEHOLDER else {"type": "text", "text": one}
        for one in segments
    ]


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the row's label as text."""
    return f"{label_of(doc):g}"


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return the label and the parsed score of one answer (None if it cannot be parsed) for each metric."""
    pair = {"label": label_of(doc), "prediction": read_score(results[0], doc["extra_info"])}
    return dict.fromkeys(_METRICS, pair)


Pair = Mapping[str, float | None]


def plcc(pairs: Sequence[Pair]) -> float:
    """Return Pearson's coefficient over the images with a parsed score; NaN if undefined."""
    return _coefficient("plcc", pairs)


def srcc(pairs: Sequence[Pair]) -> float:
    """Return Spearman's coefficient over the images with a parsed score; NaN if undefined."""
    return _coefficient("srcc", pairs)


def parsed(pairs: Sequence[Pair]) -> float:
    """Return the share of answers that could be parsed, in [0, 1]; NaN if there are none."""
    return sum(pair["prediction"] is not None for pair in pairs) / len(pairs) if pairs else math.nan


def _coefficient(name: str, pairs: Sequence[Pair]) -> float:
    numbers = [(pair["prediction"], pair["label"]) for pair in pairs]
    read = [(score, label) for score, label in numbers if score is not None and label is not None]
    value = correlations([score for score, _ in read], [label for _, label in read])[name]
    return math.nan if value is None else float(value)
