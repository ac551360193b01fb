"""Present an evaluation: report.md, plots, and a page with the worst answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omniq_verl.data.files import replace_bytes, replace_text
from omniq_verl.data.images import BadImage, data_url
from omniq_verl.data.row_refs import RowReader, RowRef, image_bytes
from omniq_verl.evaluation.gaps import NAMES, RULE, gaps
from omniq_verl.evaluation.plots import as_png, draw_confusion, draw_scatter
from omniq_verl.generation.provenance import lines_of, rows_text

WORST = 20
_COUNTS = ("scored", "without a readable answer", "bad images")
SCORES = ("plcc", "srcc", "krcc", "rmse")
ACCURACIES = ("class_accuracy", "level_accuracy")
_IN_TERMINAL = ("plcc", "srcc", "rmse", "class_accuracy")
_NAMES = {**NAMES, "mae": "MAE"}


def figure_text(figure: Mapping[str, float | None] | None) -> str:
    """Format a figure and its interval, e.g. ``0.912 [0.903, 0.921]``; a dash if undefined."""
    if figure is None or figure["value"] is None:
        return "-"
    bounds = f" [{figure['low']:.3f}, {figure['high']:.3f}]" if figure["low"] is not None else ""
    return f"{figure['value']:.3f}{bounds}"


def tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the report's tables, each with ``title``, ``columns`` and ``rows`` of texts. Empty tables are omitted."""
    sets = metrics["sets"]
    scored = {name: figures for name, figures in sets.items() if "plcc" in figures}
    classed = {name: figures for name, figures in sets.items() if "class_accuracy" in figures}
    found = [
        _table("Scores", ["set", *_names(SCORES), "MAE", "over images", "level accuracy"], _score_rows(scored)),
        _table("After a logistic curve (VQEG)", ["set", "curve", "PLCC", "RMSE"], _fit_rows(scored)),
        _table("Distortions", ["set", "class accuracy", "level accuracy"], _accuracy_rows(classed)),
        _table("Answers", ["set", "images", *_COUNTS, "answers", "rejected answers"], _answer_rows(sets)),
        *(
            _group_table(name, key, groups)
            for name, one in sets.items()
            for key, groups in one.get("groups", {}).items()
        ),
    ]
    return [table for table in found if table["rows"]]


def _table(title: str, columns: Sequence[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"title": title, "columns": list(columns), "rows": rows}


def _names(keys: Sequence[str]) -> list[str]:
    return [_NAMES.get(key, key.replace("_", " ")) for key in keys]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _score_rows(sets: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            *(figure_text(one[key]) for key in SCORES),
            _number(one["mae"]),
            f"{one['scored']} of {one['images']}",
            figure_text(one["level_accuracy"]),
        ]
        for name, one in sets.items()
    ]


def _fit_rows(sets: Mapping[str, Any]) -> list[list[str]]:
    return [
        [name, f"{curve[-1]} parameters", _number(fit["plcc"]), _number(fit["rmse"])]
        for name, one in sets.items()
        for curve, fit in one["fits"].items()
    ]


def _accuracy_rows(sets: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *(figure_text(one[key]) for key in ACCURACIES)] for name, one in sets.items()]


def _answer_rows(sets: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, one in sets.items():
        rejected = [f"{status} {number}" for status, number in one["status"].items() if status != "ok"]
        counts = [str(one[key]) for key in ("images", "scored", "unreadable", "bad_images", "answers")]
        rows.append([name, *counts, ", ".join(rejected) or "none"])
    return rows


def _group_table(name: str, key: str, groups: Mapping[str, Any]) -> dict[str, Any]:
    keys = SCORES if any("plcc" in one for one in groups.values()) else ACCURACIES
    rows = [[value, str(one["images"]), *(figure_text(one.get(key)) for key in keys)] for value, one in groups.items()]
    return _table(f"{name} by {key}", [key, "images", *_names(keys)], rows)


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """Print one line per set; everything else is in the report."""
    keys = [key for key in _IN_TERMINAL if any(key in one for one in metrics["sets"].values())]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption="[ ]: 95% bootstrap interval over images")
    table.add_column("set", overflow="fold")
    for title in ("images", "scored", *_names(keys)):
        table.add_column(title, justify="right", overflow="fold")
    for name, one in metrics["sets"].items():
        figures = [figure_text(one.get(key)).replace(" [", "\n[") for key in keys]
        table.add_row(name, str(one["images"]), str(one["scored"]), *map(escape, figures))
    console.print(table)
    if metrics["limit"]:
        rows = rows_text(metrics["provenance"]["data"])
        console.print(f"rows: {rows}; not comparable with a run on all rows", markup=False, soft_wrap=True)
    for sentence in gaps(metrics):
        console.print(sentence, markup=False, soft_wrap=True)


def write_report(
    out: Path, metrics: Mapping[str, Any], images: pd.DataFrame, judged: pd.DataFrame, refs: Sequence[RowRef]
) -> Path:
    """Write ``plots/*.png``, ``report.md`` and the self-contained ``report.html``; returns the page's path."""
    pictures = _draw(out / "plots", metrics, images)
    replace_text(out / "report.md", markdown(metrics, pictures))
    page = (
        Environment(loader=PackageLoader("omniq_verl.evaluation"), autoescape=True)
        .get_template("report.html")
        .render(
            metrics=metrics,
            note=note(metrics),
            tables=tables(metrics),
            gaps=gaps(metrics),
            provenance=lines_of(metrics["provenance"]),
            pictures={title: data_url(path.read_bytes()) for title, path in pictures.items()},
            worst={name: worst(some, judged, refs) for name, some in images.groupby("set", sort=False)},
        )
    )
    return replace_text(out / "report.html", page)


def _draw(folder: Path, metrics: Mapping[str, Any], images: pd.DataFrame) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, figures in metrics["sets"].items():
        if "plcc" in figures:
            drawn[name] = draw_scatter(images[images.set == name], figures, name)
        else:
            drawn[f"{name}, class"] = draw_confusion(figures["confusion"], f"{name}: class")
        if any(sum(row.values()) for row in figures.get("level_confusion", {}).values()):
            drawn[f"{name}, level"] = draw_confusion(
                figures["level_confusion"], f"{name}: level, where the class is right"
            )
    paths = {title: folder / f"{_file_name(title)}.png" for title in drawn}
    for title, figure in drawn.items():
        replace_bytes(paths[title], as_png(figure))
    return paths


def _file_name(title: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title)


def note(metrics: Mapping[str, Any]) -> str:
    """Explain how to interpret the figures."""
    sampling = metrics["sampling"]
    run_options = "greedy" if sampling["temperature"] == 0 else f"temperature {sampling['temperature']:g}"
    several = f", the mean of {sampling['n']} answers per image" if sampling["n"] > 1 else ""
    limited = f" Only the first {metrics['limit']} rows of each file." if metrics["limit"] else ""
    return (
        f"{metrics['model']}, {run_options}{several}.{limited} Brackets: 95% bootstrap intervals over images"
        f" ({metrics['resamples']} resamples). PLCC, SRCC, KRCC, RMSE and MAE are over the scored images. Rejected"
        f" answers are counted below and never replaced by a number; for accuracies they count as wrong. {RULE}"
    )


def markdown(metrics: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """Return the report as Markdown."""
    parts = ["# Evaluation", note(metrics), *(f"**Warning:** {warning}." for warning in metrics["warnings"])]
    for table in tables(metrics):
        lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
        parts += [f"## {table['title']}", "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)]
    parts += [f"![{title}](plots/{path.name})" for title, path in pictures.items()]
    if missing := gaps(metrics):
        parts += ["## What is missing from the tables", "\n".join(f"- {sentence}" for sentence in missing)]
    parts += ["## Conditions", "\n".join(f"- {name}: `{text}`" for name, text in lines_of(metrics["provenance"]))]
    return "\n\n".join([*parts, metrics["made_by"]]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def worst(images: pd.DataFrame, judged: pd.DataFrame, refs: Sequence[RowRef]) -> list[dict[str, Any]]:
    """Return the images of a set with the largest errors, worst first. Rejected answers are not included."""
    if images.target.notna().any():
        off = (images.score - images.target).abs()
        what = [
            f"score {score:.2f}, label {label:.2f}" for score, label in zip(images.score, images.target, strict=True)
        ]
    else:
        off = 1 - (images.class_right + images.level_right.fillna(images.class_right)) / 2
        what = [f"label {a}, {b}" for a, b in zip(images.class_target, images.level_target, strict=True)]
    chosen = images.assign(off=off, what=what)[images.parsed > 0].nlargest(WORST, "off")
    answers = judged[judged.key.isin(chosen.key)].groupby("key")
    by_key = {ref.key: ref for ref in refs if ref.key in set(chosen.key)}
    found = [by_key[key] for key in chosen.key]
    return [
        {"key": key, "what": what, "image": image, "answers": answers.get_group(key).answer.tolist()[:3]}
        for key, what, image in zip(chosen.key, chosen.what, _images(found), strict=True)
    ]


def _images(refs: Sequence[RowRef]) -> list[str | None]:
    rows = RowReader(["images"]).read(refs)
    found: list[str | None] = []
    for row in rows:
        try:
            found.append(data_url(image_bytes(row)[0]))
        except BadImage:  # its file has been deleted since
            found.append(None)
    return found
