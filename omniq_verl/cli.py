"""The command ``omniq``. It only parses arguments, calls functions and prints; heavy imports are inside the commands.

``omniq_verl.command_line`` documents the exit codes.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from omniq_verl import __version__
from omniq_verl.command_line import make_strict
from omniq_verl.cot.cli import app as cot
from omniq_verl.evaluation.cli import app as evaluation
from omniq_verl.evaluation.figures_cli import app as figures
from omniq_verl.findings.cli import app as findings
from omniq_verl.packaged import recipe_file, recipes_folder
from omniq_verl.packaged_cli import FOLDER, data, recipes
from omniq_verl.pipeline.cli import reproduce
from omniq_verl.publishing.cli import app as publishing
from omniq_verl.ract.cli import app as ract
from omniq_verl.rali.cli import app as rali
from omniq_verl.scoring.cli import app as scoring
from omniq_verl.serving.cli import serve
from omniq_verl.serving.demo_cli import demo
from omniq_verl.t2i.cli import app as t2i

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cot, name="cot")
app.add_typer(findings, name="findings")
app.add_typer(recipes, name="recipes")
app.add_typer(ract, name="ract")
app.add_typer(rali, name="rali")
app.add_typer(t2i, name="t2i")
app.add_typer(evaluation)
app.add_typer(figures)
app.add_typer(scoring)
app.add_typer(publishing)
app.command()(serve)
app.command()(demo)
app.command()(reproduce)
# Everything after a script's name belongs to the script.
app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})(data)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"omniq_verl {__version__}")
        raise typer.Exit


@app.callback()
def omniq(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Image-quality reward models that reason: train them on verl, evaluate them and use them."""


@app.command()
def doctor(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe, e.g. quickstart/grpo; see `omniq recipes`.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as for training, KEY=VALUE.")] = None,
    folder: FOLDER = None,
    live: Annotated[
        bool, typer.Option("--live", help="Start the engines, and check their results on rows of the data.")
    ] = False,
    live_timeout: Annotated[float, typer.Option(help="Seconds for the live check, including the start of engines.")] = (
        1800.0
    ),
) -> None:
    """Check a training run without starting it: settings, data files, model, memory.

    With --live the rollout engine and the trained model start as in the run. In about a minute they are checked for
    matching results, correct images, weight updates that reach the vision tower, and correct rewards.

    Example: omniq doctor quickstart/grpo data.train_files=train.parquet data.val_files=val.parquet
    actor_rollout_ref.model.path=models/tiny trainer.default_local_dir=runs/first

    Exit code 0: no problem found. 1: problems, one per line, each with its fix.
    """
    try:
        folder = recipes_folder(folder)
        recipe_file(folder, recipe)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    from hydra.errors import HydraException

    from omniq_verl.doctor.checks import check_config
    from omniq_verl.doctor.compose import compose_recipe

    try:
        config = compose_recipe(recipe, overrides or [], folder)
    except HydraException as error:
        raise typer.BadParameter(str(error)) from error
    report = check_config(config, overrides=overrides or [])
    for problem in report.problems:
        typer.echo(problem)
    for note in report.notes:
        typer.echo(note)
    typer.echo(f"recipe: {recipe_file(folder, recipe)}")
    typer.echo(report.summary())
    if report.problems or not live:
        raise typer.Exit(1 if report.problems else 0)
    raise typer.Exit(_check_live(recipe, overrides or [], folder, config, live_timeout))


def _check_live(recipe: str, overrides: list[str], folder: Path, config: Any, timeout: float) -> int:
    from rich.console import Console

    from omniq_verl.live.start import NoReport, run_live_check

    try:
        found = run_live_check(recipe, overrides, folder, config, timeout, Console(stderr=True))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except NoReport as error:
        typer.echo(f"live check: {error}", err=True)
        return 1
    for one in found.findings:
        typer.echo(one)
    failed = len(found.failed)
    verdict = f"{failed} of {len(found.findings)} findings failed" if failed else "no fault found"
    typer.echo(f"live check over {found.conditions['rows']} rows in {found.seconds:.0f} s: {verdict}")
    return 1 if failed else 0


make_strict(app)


def main() -> None:
    """Entry point of the program ``omniq``."""
    app(args=[expand_home(word) for word in sys.argv[1:]])


def expand_home(word: str) -> str:
    """Expand a leading ``~`` in a word of the command line, because shells do not expand it in ``--out=~/x``.

    Training settings (KEY=VALUE) are not changed, because verl takes ``~`` literally; ``omniq doctor`` reports that.
    """
    option, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(path)}" if path.startswith("~/") else word


if __name__ == "__main__":
    main()
