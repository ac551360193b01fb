"""``omniq publish`` and ``omniq leaderboard``."""

from pathlib import Path
from typing import Annotated

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options

app = typer.Typer()


@app.command()
def publish(
    run: Annotated[
        Path, typer.Argument(help="Model folder, or a training run's folder (its best or newest checkpoint is used).")
    ],
    licence: Annotated[str, typer.Option(help="Licence of the weights, e.g. apache-2.0.")],
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder to write.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task it was trained for; repeatable.")] = None,
    scale: options.SCALE = None,
    evaluation: Annotated[list[Path] | None, typer.Option(help="Folder of omniq eval; repeatable.")] = None,
    base: Annotated[str | None, typer.Option(help="Name of the base model on the hub.")] = None,
    limits: Annotated[str, typer.Option(help="What it must not be used for, or was not tried on.")] = "",
    push: Annotated[str | None, typer.Option(help="ORG/NAME on the Hugging Face hub to upload to.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show everything, but write and upload nothing.")] = False,
) -> None:
    """Publish a trained model as a folder that others can use: weights, card, and omniq.json.

    Example: omniq publish runs/stage2 --licence apache-2.0 --evaluation runs/eval --out published/my-model

    Exit code 1: there is no model, it is unsafe or incomplete, or an evaluation measured other weights.
    """
    from omniq_verl.generation.run_folder import find_checkpoint
    from omniq_verl.publishing import publish as steps
    from omniq_verl.publishing.card import CardOptions
    from omniq_verl.tasks import scale_of

    reject_idle({"out": "with --dry-run" if dry_run else None, "private": None if push else "without --push"})
    with cli_errors() as console:
        if out is None and not dry_run:
            raise ValueError("no folder to write. Fix: name it with --out FOLDER, or look first with --dry-run")
        name = push or str(out or run)
        options = CardOptions(name, licence, tuple(task or ["technical"]), scale_of(scale), base, limits)
        found = steps.prepare(run, options, evaluation or [])
        if taken := find_checkpoint(run):
            console.print(f"model: {taken.folder} ({taken.why} of {run})", markup=False, soft_wrap=True)
        for line in found.lines():
            console.print(line, markup=False, soft_wrap=True)
        if out is None:  # with --dry-run
            console.print(f"\n{found.card}", markup=False, soft_wrap=True, highlight=False)
            return
        steps.write(found, out)
        console.print(f"published: {out}", markup=False, soft_wrap=True)
        if push:
            console.print(f"uploaded: {steps.push(out, push, private)}", markup=False, soft_wrap=True)


@app.command()
def leaderboard(
    evaluations: Annotated[list[Path], typer.Argument(help="Folders of omniq eval.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for leaderboard.html, .md and .json.")],
) -> None:
    """Write a page that ranks evaluated models by their mean SRCC over the data sets that they all share.

    Example: omniq leaderboard runs/eval_* --out runs/leaderboard

    Exit code 1: a folder holds no evaluation, or the evaluations differ in their --limit.
    """
    from omniq_verl.publishing.leaderboard import table, write_leaderboard

    with cli_errors() as console:
        found = write_leaderboard(evaluations, out)
        columns, rows = table(found)
        for row in rows:
            console.print("; ".join(f"{a} {b}".strip() for a, b in zip(columns, row, strict=True)), markup=False)
        for note in found["notes"]:
            console.print(f"- {note}", markup=False, soft_wrap=True)
        console.print(f"page: {out / 'leaderboard.html'}", markup=False, soft_wrap=True)
