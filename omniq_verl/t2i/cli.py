"""``omniq t2i``: the reward model guides the generation of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from omniq_verl.generation import options
from omniq_verl.saying import errors_said
from omniq_verl.t2i.generator import DEFAULT_MODEL

if TYPE_CHECKING:
    from omniq_verl.generation.engines import EngineSpec

app = typer.Typer(no_args_is_help=True, help="Guide text-to-image generation by a reward model.")


@app.command("best-of-n")
@options.asks_a_model
def best_of_n(
    spec: "EngineSpec",
    prompts: Annotated[Path, typer.Argument(help=".txt with a text a line, or .jsonl (GenEval's metadata, too).")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on where it stopped.")],
    generator: Annotated[
        str, typer.Option(help="Text-to-image pipeline of diffusers: folder or name.")
    ] = DEFAULT_MODEL,
    n: Annotated[int, typer.Option(help="Images for each text (OmniQuality-R, table 5: 20).")] = 20,
    weight: Annotated[list[str] | None, typer.Option(help="TASK=WEIGHT; again for more. Default: alignment=1.")] = None,
    order: Annotated[list[str] | None, typer.Option(help="Rank by this task first, by the next among equals.")] = None,
    within: Annotated[float, typer.Option(help="With --order: scores this close to the best are equal.")] = 0.0,
    steps: Annotated[int | None, typer.Option(help="Of denoising; default: the pipeline's.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the pipeline's.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.")] = None,
    batch: Annotated[int, typer.Option(help="Images drawn at a time.")] = 4,
    limit: Annotated[int | None, typer.Option(help="The first so many texts.")] = None,
    max_tokens: options.MAX_TOKENS = 1024,
    seed: Annotated[int, typer.Option(help="Of the first image of every text; the others count on.")] = 0,
) -> None:
    """Draw several images for each text, score them, pick the best; contact sheets and all images are kept.

    Example: omniq t2i best-of-n prompts.txt --model runs/stage2/huggingface --n 20 --weight alignment=1
    --weight aesthetic=0.5 --out runs/best_of_20
    """
    from omniq_verl.t2i.best_of_n import BestOfN
    from omniq_verl.t2i.best_of_n import best_of_n as run
    from omniq_verl.t2i.generator import GeneratorSpec
    from omniq_verl.t2i.prompts import read_texts

    with errors_said() as console:
        drawn_by = GeneratorSpec(generator, steps, guidance, height, width)
        weights = read_weights(weight or ["alignment=1"])
        texts = read_texts(prompts)[:limit]
        ranked = {"weights": weights, "order": tuple(order or ()), "within": within}
        config = BestOfN(texts, out, drawn_by, spec, n, batch=batch, max_tokens=max_tokens, seed=seed, **ranked)
        picks = run(config, console)
    _say(picks, out, console)


def read_weights(words: list[str]) -> dict[str, float]:
    """Weights by task from TASK=WEIGHT.

    Raises:
        ValueError: a word is none.
    """
    found = {}
    for word in words:
        task, _, weight = word.partition("=")
        try:
            found[task] = float(weight)
        except ValueError:
            raise ValueError(f"{word!r} is no TASK=WEIGHT, such as aesthetic=0.5") from None
    return found


def _say(picks: list[dict[str, Any]], out: Path, console: Any) -> None:
    without = sum(one["best"] is None for one in picks)
    if without:
        console.print(f"{without} texts have no image with all scores; picks.jsonl says why", style="red")
    for title, name in (("picked images", "best"), ("contact sheets", "sheets"), ("picks", "picks.jsonl")):
        console.print(f"{title}: {out / name}", soft_wrap=True, markup=False)


@app.command()
def geneval(
    results: Annotated[Path, typer.Argument(help="results.jsonl of GenEval's scorer.")],
    prompts: Annotated[Path | None, typer.Option(help="GenEval's evaluation_metadata.jsonl: are all there?")] = None,
    log: Annotated[Path | None, typer.Option(help="What the scorer printed: did its detector run?")] = None,
) -> None:
    """The table of GenEval's results, beside the figures of OmniQuality-R's table 5.

    Example: omniq t2i geneval results.jsonl --prompts evaluation_metadata.jsonl --log scorer.log

    Its images: omniq t2i best-of-n evaluation_metadata.jsonl writes them in its form; its scorer is run on OUT/best.
    """
    from omniq_verl.evaluation.papers import load_table
    from omniq_verl.t2i.geneval import TAGS, check_scorer_log, read_prompts, read_results

    with errors_said() as console:
        if log is not None:
            check_scorer_log(log.read_text(errors="replace"))
        found = read_results(results, None if prompts is None else read_prompts(prompts))
    table = Table(title=f"GenEval, {found.images} images; the paper's rows were not measured here", box=SIMPLE_HEAD)
    for title in ("", "Overall", *TAGS.values()):
        table.add_column(title, justify="right" if title else "left")
    table.add_row(str(results), *(f"{value:.2f}" for value in found.row()), style="bold")
    for row in load_table("omniquality_r:5").rows:
        table.add_row(f"paper: {row.method}", *("-" if cell is None else f"{cell[0]:.2f}" for cell in row.values))
    console.print(table)
    for note in found.notes:
        console.print(f"- {note}", style="red", markup=False)
