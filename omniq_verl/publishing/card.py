"""The card of a published model (README.md), and what ``Scorer.from_pretrained`` reads of it (omniq.json)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

import omniq_verl
from omniq_verl.evaluation.report import figure_text
from omniq_verl.publishing.facts import RunFacts, doubts
from omniq_verl.tasks import Scale, Task, task_on

FORMAT, VERSION = "omniq_model", 1
_SCORE_COLUMNS = ("set", "task", "mode", "SRCC", "PLCC", "RMSE", "images")
_CLASS_COLUMNS = ("set", "task", "class accuracy", "level accuracy", "images")


@dataclass(frozen=True)
class CardOptions:
    """What the publisher says, as no file does.

    Raises:
        ValueError: the licence is empty.
    """

    name: str
    """ORG/NAME at a hub, or the folder."""
    licence: str
    """SPDX identifier, e.g. ``apache-2.0``."""
    tasks: Sequence[str] = ("technical",)
    scale: Scale | None = None
    """That the model was trained on; None: each task's own."""
    base: str | None = None
    """Name of the base model at the hub."""
    limits: str = ""
    """What the model must not be used for, or was not tried on."""

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise ValueError("the licence is empty. Fix: name it, e.g. --licence apache-2.0")

    def asked(self) -> list[Task]:
        """The tasks as the model was trained to be asked.

        Raises:
            ValueError: there is no such task.
        """
        return [task_on(name, self.scale if task_on(name, None).scale is not None else None) for name in self.tasks]


def omniq_json(run: RunFacts, options: CardOptions, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a program has to know of the model."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "family": "ours",
        "made_by": f"omniq_verl {omniq_verl.__version__}",
        "weights": run.weights,
        "tasks": [_task_record(task) for task in options.asked()],
        "recipe": {"name": run.recipe, "settings": dict(run.settings)},
        "data": [dict(one) for one in run.data],
        "evaluations": [
            {
                "mode": one.get("mode", "reason"),
                "sampling": one.get("sampling"),
                "limit": one.get("limit"),
                "doubts": doubts(one),
                "sets": one["sets"],
            }
            for one in evaluations
        ],
    }


def _task_record(task: Task) -> dict[str, Any]:
    scale = [task.scale.low, task.scale.high] if task.scale else None
    return {"name": task.name, "scale": scale, "answer_format": task.answer_format, "question": _question(task)}


def _question(task: Task) -> str:
    return task.question(None, "..." if task.needs_text else None)


def card(run: RunFacts, options: CardOptions, evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The card as Markdown, with the metadata that a hub reads."""
    parts = [
        _head(options, run),
        f"# {options.name.rsplit('/', 1)[-1]}",
        "An image-quality model that reasons, trained with omniq_verl on verl.",
        "## Use it in three lines",
        use(options.name),
        "## Questions",
        *map(_asked, options.asked()),
        "## Evaluation",
        *(_evaluated(evaluations) or ["It was not evaluated."]),
        "## Training data",
        _bullets(_data_lines(run)) or "The run does not say.",
        "## Recipe",
        _bullets(_recipe_lines(run)) or "The run does not say.",
        "## Limits",
        options.limits or "None were stated. Scores on kinds of images that are not in the table above are untested.",
        "## Licence",
        f"{options.licence}. The licences of the base model and of the data apply as well.",
    ]
    return "\n\n".join(parts) + "\n"


def use(name: str) -> str:
    """The three lines, as a block of code."""
    return (
        "```python\nfrom omniq_verl import Scorer\n"
        f'scorer = Scorer.from_pretrained({name!r}, engine="hf")\n'
        'print(scorer.score("photo.jpg"))\n```'
    )


def _head(options: CardOptions, run: RunFacts) -> str:
    fields = {
        "license": options.licence,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["omniq_verl", "image-quality-assessment", "reward-model"],
        **({"base_model": options.base} if options.base else {}),
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _asked(task: Task) -> str:
    scale = f"scores from {task.scale.low:g} to {task.scale.high:g}" if task.scale else "a distortion and its severity"
    quoted = "\n".join(f"> {line}" for line in _question(task).splitlines())
    return f"**{task.name}**: {scale}; the answer is a {task.answer_format} in `<answer>`.\n\n{quoted}"


def _evaluated(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    scored, classed = [], []
    for one in evaluations:
        for name, figures in one["sets"].items():
            count = f"{figures['scored']} of {figures['images']}"
            if "srcc" in figures:
                shown = [figure_text(figures[key]) for key in ("srcc", "plcc", "rmse")]
                scored.append([name, figures["task"], one.get("mode", "reason"), *shown, count])
            elif "class_accuracy" in figures:
                shown = [figure_text(figures[key]) for key in ("class_accuracy", "level_accuracy")]
                classed.append([name, figures["task"], *shown, count])
    tables = [_table(_SCORE_COLUMNS, scored), _table(_CLASS_COLUMNS, classed)]
    found = [table for table in tables if table]
    notes = ["Brackets: 95% bootstrap intervals over images. An answer that cannot be read has no score."]
    doubtful = [f"{', '.join(one['sets'])}: {doubt}" for one in evaluations for doubt in doubts(one)]
    notes += ["Read these figures with care:", _bullets(doubtful)] if doubtful else []
    return found + notes if found else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["-"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _data_lines(run: RunFacts) -> list[str]:
    lines = []
    for one in run.data:
        lines.append("; ".join([f"`{one['name']}`", *_named(one)]))
        lines += [
            "; ".join([f"`{one['name']}`, part `{name}`", *_named(part)]) for name, part in one.get("parts", {}).items()
        ]
    return lines


def _named(facts: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in facts.items() if name not in ("name", "parts")]


def _recipe_lines(run: RunFacts) -> list[str]:
    named = ([f"recipe: `{run.recipe}`"] if run.recipe else []) + ([f"began with: `{run.base}`"] if run.base else [])
    return named + [f"`{name}`: {value}" for name, value in run.settings.items()]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_cell(line)}" for line in lines)
