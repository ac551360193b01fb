"""``omniq eval`` and the commands that present its results."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

app = typer.Typer()


@app.command("eval")
@options.asks_a_model
def evaluate(
    spec: "EngineSpec",
    out: options.OUT,
    data: Annotated[list[Path] | None, typer.Option(help="Prepared parquet file. Repeatable.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(help="Further prepared files.")] = None,
    samples: options.SAMPLES = 1,
    temperature: Annotated[float | None, typer.Option(help="Default: 0 for one answer, 1 for several.")] = None,
    max_tokens: options.MAX_TOKENS = 1024,
    by: Annotated[list[str] | None, typer.Option(help="Also measure groups by this key of the rows' details.")] = None,
    limit: options.LIMIT = None,
    workers: options.WORKERS = 1,
    batch: options.KEPT_AT_ONCE = 256,
    resamples: options.RESAMPLES = 1000,
    seed: options.SEED = 0,
    mode: Annotated[str, typer.Option(help=f"{options.MODE_HELP}; both: in one report.")] = "reason",
    family: options.FAMILY = None,
) -> None:
    """Measure a model on prepared files: PLCC, SRCC, KRCC, RMSE, accuracies, with intervals, tables and plots.

    Example: omniq eval --model runs/stage2 --data data/koniq/test*.parquet --out runs/eval
    """
    from omniq_verl.evaluation import run
    from omniq_verl.evaluation.modes import evaluate_modes
    from omniq_verl.families.find import as_family
    from omniq_verl.generation.request import Sampling
    from omniq_verl.generation.runner import RunOptions

    with cli_errors() as console:
        temperature = (1.0 if samples > 1 else 0.0) if temperature is None else temperature
        run_options = RunOptions(on="here" if workers == 1 else "ray", workers=workers, batch=batch)
        options.reject_idle_sampling(samples, temperature)
        sampling = Sampling(samples, temperature, max_tokens=max_tokens)
        files = [*(data or []), *(more or [])]
        if family is not None:
            spec, found = as_family(spec, None if family == "auto" else family)
            family = found.name
        config = run.EvalConfig(files, out, spec, sampling, run_options, tuple(by or ()), limit, resamples, seed)
        config = replace(config, family=family)
        if mode == "both":
            evaluate_modes(config, console)
        else:
            run.evaluate(replace(config, mode=mode), console)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders written by omniq eval.")],
    paper: Annotated[str | None, typer.Option(help="Also show a paper's table, e.g. omniquality_r:1.")] = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for compare.md and compare.json.")] = None,
) -> None:
    """Compare evaluations, with paired tests of the first against each of the others, and a paper's figures.

    Differences are the first minus the other: a positive one means that the first has the higher correlation.

    Example: omniq compare runs/stage2_eval runs/sft_eval --paper omniquality_r:1
    """
    from omniq_verl.evaluation.compare import compare_runs

    with cli_errors() as console:
        compare_runs(runs, paper, out, console)


@app.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs (trainer.default_local_dir).")],
    out: Annotated[Path, typer.Option(help="Plot to write; a .csv with the numbers is saved next to it.")] = Path(
        "curves.png"
    ),
) -> None:
    """Plot training runs over their steps: reward, SRCC, entropy, kept groups, gate, clip fraction, length.

    Example: omniq curves runs/stage1 runs/stage2 --out curves.png
    """
    from omniq_verl.evaluation.curves import draw_curves

    with cli_errors() as console:
        console.print(f"curves: {draw_curves(runs, out)}", soft_wrap=True, markup=False)


@app.command()
def heatmap(
    model: Annotated[list[str], typer.Option(help="Folder of a model or a training run; repeat to compare two.")],
    image: Annotated[Path, typer.Option(help="Image to ask about.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the page, the plot and the numbers.")],
    task: options.TASK = "technical",
    prompt: Annotated[str | None, typer.Option(help="Text the image was generated from, for alignment.")] = None,
    answer: Annotated[str | None, typer.Option(help="Answer, or a file with it. Default: the first model's.")] = None,
    rho: Annotated[float, typer.Option(help="Share of tokens to mark, chosen like the entropy gate.")] = 0.2,
    max_tokens: options.MAX_TOKENS = 1024,
    question: Annotated[str | None, typer.Option(help="Question to ask instead of the task's.")] = None,
    scale: options.SCALE = None,
    verbose: options.VERBOSE = False,
) -> None:
    """Show the entropy of every token of an answer, under one or two checkpoints, as a page and a plot.

    Example: omniq heatmap --model runs/sft --model runs/stage2 --image photo.jpg --out runs/heatmap
    """
    set_up_logs(verbose)
    from omniq_verl.evaluation.heatmap import draw_heatmap

    of_task = None if question is None else "with --question"
    reject_idle(dict.fromkeys(("task", "prompt", "scale"), of_task))
    reject_idle({"max_tokens": None if answer is None else "with --answer"})
    with cli_errors() as console:
        page = draw_heatmap(model, image, out, task, prompt, answer, rho, max_tokens, question, scale)
        console.print(f"page: {page}", soft_wrap=True, markup=False)
