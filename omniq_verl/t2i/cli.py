"""``omniq t2i``: text-to-image generation guided by the reward model."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.t2i.generator import DEFAULT_MODEL

if TYPE_CHECKING:
    from omniq_verl.evaluation.papers import PaperTable
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.t2i.compare_selectors import Row

app = typer.Typer(no_args_is_help=True, help="Guide text-to-image generation with a reward model.")

PIXELS = Annotated[int | None, typer.Option(help="In pixels. Default: the pipeline's.")]


def guided_options(
    prompts: Annotated[Path, typer.Argument(help=".txt with one text per line, or .jsonl, e.g. GenEval's metadata.")],
    out: options.OUT,
    generator: Annotated[str, typer.Option(help="Diffusers text-to-image pipeline: folder or name.")] = DEFAULT_MODEL,
    weight: Annotated[list[str] | None, typer.Option(help="TASK=WEIGHT. Repeatable. Default: alignment=1.")] = None,
    order: Annotated[list[str] | None, typer.Option(help="Rank by this task first; repeat for tie-breakers.")] = None,
    within: Annotated[float, typer.Option(help="With --order: scores this close to the best count as equal.")] = 0.0,
    selector: Annotated[
        str | None,
        typer.Option(help="Rank by your own function, package.module:function; --weight names the tasks to score."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: the pipeline's.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale. Default: the pipeline's.")] = None,
    height: PIXELS = None,
    width: PIXELS = None,
    batch: Annotated[int, typer.Option(help="Images generated at once.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N texts.")] = None,
    max_tokens: options.MAX_TOKENS = 1024,
    scale: options.SCALE = None,
    seed: Annotated[int, typer.Option(help="Seed of the first image of every text; each further image adds 1.")] = 0,
) -> dict[str, Any]:
    """Options shared by best-of-n and reflect: all fields of a ``GuidedRun`` except its scorer."""
    from omniq_verl.t2i.generator import GeneratorSpec
    from omniq_verl.t2i.prompts import read_texts
    from omniq_verl.t2i.ranking import read_weights

    reject_idle({"order": "with --selector" if selector else None})
    reject_idle({"within": None if order else "without --order", "weight": "with --order" if order else None})
    return {
        "prompts": read_texts(prompts)[:limit],
        "out": out,
        "generator": GeneratorSpec(generator, steps, guidance, height, width),
        "weights": read_weights(weight or ["alignment=1"]),
        "order": tuple(order or ()),
        "within": within,
        "selector": selector,
        "batch": batch,
        "max_tokens": max_tokens,
        "scale": scale,
        "seed": seed,
        "limit": limit,
    }


def _model_or_rali(command: Callable[..., Any]) -> Callable[..., Any]:
    """Make --model optional for a command; without it the ``EngineSpec`` has None as its model."""
    asked = signature(command)
    parameters = asked.parameters.values()
    command.__signature__ = asked.replace(
        parameters=[one.replace(default=None) if one.name == "model" else one for one in parameters]
    )
    return command


@app.command("best-of-n")
@_model_or_rali
@options.asks_a_model
@options.options_of(guided_options)
def best_of_n(
    guided: dict[str, Any],
    spec: "EngineSpec",
    n: Annotated[int, typer.Option(help="Images per text (OmniQuality-R, table 5: 20).")] = 20,
    rali: Annotated[Path | None, typer.Option(help="Folder of `omniq rali fit`; scores its task.")] = None,
) -> None:
    """Generate several images for each text, score them and pick the best. All images and contact sheets are saved.

    Example: omniq t2i best-of-n prompts.txt --model runs/stage2 --n 20 --weight alignment=1
    --weight aesthetic=0.5 --out runs/best_of_20

    With --rali, RALI scores the task it was fitted for and --model scores the others; omit --model if there are none.
    """
    from omniq_verl.t2i.best_of_n import BestOfN
    from omniq_verl.t2i.best_of_n import best_of_n as run

    alone = "without --model: the RALI scores alone" if spec.model is None else None
    reject_idle(dict.fromkeys((*options.OF_ENGINES, "max_tokens"), alone))
    with cli_errors() as console:
        picks = run(BestOfN(**guided, scorer=None if spec.model is None else spec, n=n, rali=rali), console)
    _print_picks(picks, guided["out"], console)


@app.command()
@options.asks_a_model
@options.options_of(guided_options)
def reflect(
    guided: dict[str, Any],
    spec: "EngineSpec",
    rounds: Annotated[int, typer.Option(help="Rounds of reflection after the first images (table 5: 20).")] = 20,
    n: Annotated[int, typer.Option(help="First images per text; the best is reflected on (table 5: 20).")] = 1,
    writer: Annotated[
        str | None, typer.Option(help="Model that writes the prompts. Default: --model, loaded only once.")
    ] = None,
    writer_engine: Annotated[
        str | None, typer.Option(help="Engine of the writer, like --engine. Default: the same.")
    ] = None,
    writer_base_url: Annotated[
        str | None, typer.Option(help="Endpoint of the writer, like --base-url. Default: the same.")
    ] = None,
    writer_memory: Annotated[
        float, typer.Option(help="Memory of the writer, like --memory; both models stay loaded.")
    ] = 0.3,
    longest: Annotated[int, typer.Option(help="Maximum characters of a new prompt; longer ones are rejected.")] = 1000,
    stop_at: Annotated[float | None, typer.Option(help="Stop the rounds of a text once it reaches this score.")] = None,
) -> None:
    """Improve images in rounds: the reward model criticises an image, and a language model rewrites its prompt.

    Example: omniq t2i reflect prompts.txt --model runs/stage2 --rounds 20 --memory 0.5 --out runs/reflected

    Images are always scored against the original text, whatever prompt they were generated from, and the best of all
    rounds is picked. The pipeline and the models stay loaded together: lower --memory if they share a GPU.
    """
    from omniq_verl.t2i.reflection import reflect as run
    from omniq_verl.t2i.rounds import Reflection

    without = None if rounds else "with --rounds 0"
    reject_idle(dict.fromkeys(("writer", "writer_engine", "writer_base_url", "longest", "stop_at"), without))
    has_writer = (writer, writer_engine, writer_base_url) != (None, None, None)
    reject_idle({"writer_memory": None if has_writer else "without a separate writer (--writer)"})
    with cli_errors() as console:
        own = None
        if has_writer:
            kind, url = writer_engine or spec.kind, writer_base_url or spec.base_url
            own = replace(spec, model=writer or spec.model, kind=kind, base_url=url, memory=writer_memory)
        asked = {"rounds": rounds, "n": n, "stop_at": stop_at, "longest": longest}
        picks = run(Reflection(**guided, scorer=spec, writer=own, **asked), console)
    later = sum(bool(one["round"]) for one in picks)
    console.print(f"{later} of {len(picks)} picked images come from a round after the first")
    _print_rejected(picks, console)
    _print_picks(picks, guided["out"], console)


def _print_rejected(picks: list[dict[str, Any]], console: Any) -> None:
    counts = sum((Counter(one["rewrites"]) for one in picks), Counter())
    if rejected := {status: number for status, number in counts.items() if status != "ok"}:
        named = ", ".join(f"{number} {status}" for status, number in sorted(rejected.items()))
        total = sum(counts.values())
        console.print(
            f"{sum(rejected.values())} of {total} new prompts were rejected and the previous prompt was used: {named}"
        )


def _print_picks(picks: list[dict[str, Any]], out: Path, console: Any) -> None:
    without = sum(one["best"] is None for one in picks)
    if without:
        console.print(f"{without} texts have no image with all scores; see picks.jsonl for the reasons", style="red")
    for title, name in (("picked images", "best"), ("contact sheets", "sheets"), ("picks", "picks.jsonl")):
        console.print(f"{title}: {out / name}", soft_wrap=True, markup=False)


@app.command()
def selectors(
    run: Annotated[Path, typer.Argument(help="Folder of `omniq t2i best-of-n`.")],
    selector: Annotated[
        list[str] | None,
        typer.Option(
            help="[NAME:]TASK=WEIGHT[,TASK=WEIGHT...] or [NAME:]package.module:function. Repeatable. Default: each task"
            " alone, and all of them together."
        ),
    ] = None,
    scores: Annotated[
        list[str] | None, typer.Option(help="NAME=TABLE of `omniq score` for the same images. Repeatable.")
    ] = None,
) -> None:
    """Compare ways to pick the best of n, using the saved scores of a run, next to OmniQuality-R's table 7.

    Example: omniq t2i selectors runs/best_of_20 --selector aesthetic=1 --selector aesthetic=1,technical=1
    --scores DEQA=deqa.csv

    The picked images are in RUN/selected/NAME, in GenEval's layout. Scores added by --scores can be used by selectors.
    """
    from omniq_verl.evaluation.papers import load_table
    from omniq_verl.t2i.compare_selectors import (
        add_scores,
        compare_selectors,
        default_selectors,
        read_run,
        read_selector,
    )

    with cli_errors() as console:
        found = read_run(run)
        asked = (
            [read_selector(word, found.criteria) for word in selector]
            if selector
            else default_selectors(found.criteria)
        )
        for word in scores or ():
            name, _, table = word.partition("=")
            found = add_scores(found, name, Path(table))
        rows, texts = compare_selectors(found, asked)
    console.print(_selector_table(rows, load_table("omniquality_r:7"), texts, len(found.scores)))
    console.print(f"picked images: {run / 'selected'}", soft_wrap=True, markup=False)


def _selector_table(rows: "list[Row]", paper: "PaperTable", texts: int, of: int) -> Table:
    """Our rows, followed by the paper's rows in the columns they share."""
    columns = list(dict.fromkeys([*rows[0].means, *(column.name for column in paper.columns)]))
    title = f"Picks in {texts} of {of} texts, mean ± deviation; the paper's rows were not measured here"
    table = Table(title=title, box=SIMPLE_HEAD)
    for name in ("", "same pick", *columns):
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in rows:
        cells = [_figure(row.means.get(name), row.deviations.get(name)) for name in columns]
        short = [f" ({row.scored[name]})" if 0 < row.scored.get(name, 0) < texts else "" for name in columns]
        table.add_row(row.name, f"{row.same:.0%}", *map("".join, zip(cells, short, strict=True)), style="bold")
    printed = [column.name for column in paper.columns]
    for row in paper.rows:
        cells = dict(zip(printed, row.values, strict=True))
        table.add_row(f"paper: {row.method}", "-", *(_figure(*(cells.get(name) or (None, None))) for name in columns))
    return table


def _figure(mean: float | None, deviation: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f} ± {deviation:.3f}"


@app.command()
def geneval(
    results: Annotated[Path, typer.Argument(help="results.jsonl of GenEval's scorer.")],
    prompts: Annotated[
        Path | None, typer.Option(help="GenEval's evaluation_metadata.jsonl; checks completeness.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Log of the scorer; checks that its detector ran.")] = None,
) -> None:
    """Print the table of GenEval's results next to OmniQuality-R's table 5.

    Example: omniq t2i geneval results.jsonl --prompts evaluation_metadata.jsonl --log scorer.log

    To generate the images, run omniq t2i best-of-n evaluation_metadata.jsonl; then run GenEval's scorer on OUT/best.
    """
    from omniq_verl.data.files import file_digest
    from omniq_verl.evaluation.papers import load_table
    from omniq_verl.generation.provenance import lines_of, provenance, this_start
    from omniq_verl.t2i.geneval import TAGS, check_scorer_log, read_prompts, read_results

    with cli_errors() as console:
        if log is not None:
            check_scorer_log(log.read_text(errors="replace"))
        found = read_results(results, None if prompts is None else read_prompts(prompts))
    table = Table(title=f"GenEval, {found.images} images; the paper's rows were not measured here", box=SIMPLE_HEAD)
    for title in ("", "Overall", *TAGS.values()):
        table.add_column(title, justify="right" if title else "left", overflow="fold")
    table.add_row(str(results), *(f"{value:.2f}" for value in found.row()), style="bold")
    for row in load_table("omniquality_r:5").rows:
        table.add_row(f"paper: {row.method}", *("-" if cell is None else f"{cell[0]:.2f}" for cell in row.values))
    console.print(table)
    known = {"results": str(results), "xxh128": file_digest(results), "images": found.images}
    for name, text in lines_of(provenance([this_start()], **known)):
        console.print(f"{name}: {text}", soft_wrap=True, markup=False, highlight=False)
    for note in found.notes:
        console.print(f"- {note}", style="red", markup=False)
