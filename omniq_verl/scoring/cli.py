"""``omniq score`` and ``omniq compare-images``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec
    from omniq_verl.scoring.comparison import Comparison
    from omniq_verl.scoring.scorer import Score

app = typer.Typer()


@app.command()
@options.asks_a_model
def score(
    spec: "EngineSpec",
    images: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    task: options.TASK = "technical",
    prompt: Annotated[str | None, typer.Option(help="Text the images were generated from, for alignment.")] = None,
    scale: options.SCALE = None,
    out: Annotated[Path | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")] = None,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Also print the model's reasoning.")] = False,
    samples: options.SAMPLES = 1,
    temperature: Annotated[float, typer.Option(help="Sampling temperature if --samples > 1.")] = 1.0,
    seed: options.SEED = 0,
    max_tokens: options.MAX_TOKENS = 1024,
    mode: Annotated[str | None, typer.Option(help=f"{options.MODE_HELP}; default: the family's own.")] = None,
    family: options.FAMILY = None,
) -> None:
    """Score images: a number or a distortion, a level and the reasoning, or the reason why there is none.

    Example: omniq score photos/ --model runs/stage2 --task aesthetic --out scores.csv

    Files that are not images, or that training would reject, are reported and skipped. With --out a killed run resumes.
    Exit code 1: nothing could be scored.
    """
    from omniq_verl.families.find import as_family
    from omniq_verl.generation.direct import check_mode, score_texts
    from omniq_verl.scoring.image_inputs import list_files
    from omniq_verl.scoring.score_table import check_each_once, score_files
    from omniq_verl.scoring.scorer import Scorer, asked_tasks, check_texts
    from omniq_verl.tasks import scale_of

    options.reject_idle_sampling(samples, temperature if samples > 1 else 0.0, takes_temperature=False)
    reject_idle({"reasoning": None if out is None else "with --out, whose table has the reasoning anyway"})
    asked = {"task": task, "prompt": prompt, "samples": samples, "temperature": temperature}
    with cli_errors() as console:
        spec, found = (spec, None) if family is None else as_family(spec, None if family == "auto" else family)
        mode = mode or ("reason" if found is None else found.mode)
        check_mode(mode)
        without = "with --mode direct, which generates nothing" if mode == "direct" else None
        reject_idle(dict.fromkeys(("samples", "temperature", "seed", "reasoning", "max_tokens"), without))
        asked["scale"] = scale_of(scale)
        for one in (
            asked_tasks(task, asked["scale"]) if found is None else [found.task(task)]
        ):  # before a model is loaded
            check_texts(one, [prompt])
            one.question(None, prompt)
            reject_idle({"prompt": None if one.needs_text else f"with --task {task}, which does not use a text"})
            if scale is not None and one.scale is None:
                raise ValueError(f"the task {one.name} has no score. Fix: remove --scale")
            if mode == "direct" and found is None:
                score_texts(one)
        files = list_files(images)
        check_each_once(files)
        if out is None:
            scorer = Scorer(spec, max_tokens=max_tokens, seed=seed, mode=mode, family=found)
            scored = _print_scores(scorer.batches(files, **asked), console, reasoning)
        else:
            scored = score_files(spec, files, out, console, asked, max_tokens, seed, mode, found)
    raise typer.Exit(0 if scored else 1)


def _print_scores(batches: "Iterable[list[Score]]", console: Any, reasoning: bool) -> int:
    """Print scores as they arrive, and return the number of images with a score."""
    found = 0
    for one in (score for batch in batches for score in batch):
        found += one.ok
        text = one.error or (_result_text(one) if one.ok else f"no score: {one.status}")
        console.print(f"{one.image}: {text}", style=None if one.ok else "red", markup=False, soft_wrap=True)
        if reasoning and one.answer:
            console.print(f"    {one.reasoning or one.answer}", markup=False, style="dim")
    return found


def _result_text(one: "Score") -> str:
    if one.score is None:
        return f"{one.severity} {one.distortion}" if one.distortion else "no distortion"
    if one.outside is not None:
        return f"{one.score:.2f} ± {one.std:.2f} ({one.outside:.1%} outside of the scale) {one.level}"
    spread = "" if one.std is None else f" ± {one.std:.2f} ({one.parsed} of {one.answers} answers)"
    return f"{one.score:.2f}{spread} {one.level}"


@app.command("compare-images")
@options.asks_a_model
def compare_images(
    spec: "EngineSpec",
    a: Annotated[Path, typer.Argument(help="One image.")],
    b: Annotated[Path, typer.Argument(help="The other image.")],
    reference: Annotated[Path | None, typer.Option(help="Low-quality image that both were made from.")] = None,
    samples: options.SAMPLES = 1,
    seed: options.SEED = 0,
    max_tokens: options.MAX_TOKENS = 1024,
) -> None:
    """Decide which of two images is better. Both orders are asked (our addition), so position gives no advantage.

    Example: omniq compare-images a.png b.png --reference low.png --model runs/q_insight

    Exit code 1: an image is missing, or no answer could be parsed. If the two orders disagree, neither image wins.
    """
    from omniq_verl.scoring.comparison import Comparer
    from omniq_verl.scoring.image_inputs import list_files

    options.reject_idle_sampling(samples, 1.0 if samples > 1 else 0.0)
    with cli_errors() as console:
        list_files([a, b, *([] if reference is None else [reference])])  # check that they exist
        comparer = Comparer(replace(spec, images=3), max_tokens=max_tokens, seed=seed)
        (found,) = comparer.compare([(a, b)], None if reference is None else [reference], samples)
    raise typer.Exit(_show(found, console))


def _show(found: "Comparison", console: Any) -> int:
    if found.status != "ok":
        console.print(f"{found.status}: {found.error}", style="red", markup=False, soft_wrap=True)
        return 1
    neither = "neither: an order is undecided" if found.agree is None else "neither: the two orders disagree"
    better = {"A": f"{found.a} is better", "B": f"{found.b} is better", None: neither}
    console.print(better[found.winner], markup=False, soft_wrap=True)
    shares = f"{found.a} won {found.share_a:.0%} of the answers"
    shares += f"; the image shown first won {found.share_first:.0%} (50% means no position bias)"
    if found.parsed < found.answers:
        shares += f"; {found.parsed} of {found.answers} answers could be parsed"
    console.print(shares, markup=False, soft_wrap=True)
    for order, text in zip(("as given", "swapped"), found.reasoning, strict=True):
        console.print(f"{order}: {text or 'no reasoning'}", markup=False, style="dim")
    return 0
