"""The command ``omniq``: parses, calls, prints. Heavy imports stand inside of the commands.

``omniq_verl.command_line`` says what the exit codes mean.
"""

from pathlib import Path
from typing import Annotated

import typer

from omniq_verl.command_line import make_strict
from omniq_verl.cot.cli import app as cot
from omniq_verl.evaluation.cli import app as evaluation
from omniq_verl.ract.cli import app as ract
from omniq_verl.rali.cli import app as rali
from omniq_verl.scoring.cli import app as scoring
from omniq_verl.serving.cli import serve
from omniq_verl.t2i.cli import app as t2i

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(cot, name="cot")
app.add_typer(ract, name="ract")
app.add_typer(rali, name="rali")
app.add_typer(t2i, name="t2i")
app.add_typer(evaluation)
app.add_typer(scoring)
app.command()(serve)


@app.callback()
def omniq() -> None:
    """Image-quality reward models that reason: training on verl, measuring, using."""


@app.command()
def doctor(
    recipe: Annotated[str, typer.Argument(help="Recipe below the folder of recipes, e.g. quickstart/grpo.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as for training, KEY=VALUE.")] = None,
    recipes: Annotated[Path, typer.Option(help="Folder of the recipes.")] = Path("recipes"),
) -> None:
    """Check a training run without starting it: settings, data files, model, memory.

    Example: omniq doctor quickstart/grpo data.train_files=train.parquet data.val_files=val.parquet
    actor_rollout_ref.model.path=models/tiny trainer.default_local_dir=runs/first

    Exit code 0: no problem found. 1: problems, one per line, each with its mend.
    """
    if not recipes.is_dir():
        raise typer.BadParameter(f"there is no folder {recipes}; name the folder of recipes with --recipes DIR")
    from hydra.errors import HydraException

    from omniq_verl.doctor.checks import check_config
    from omniq_verl.doctor.compose import compose_recipe

    try:
        config = compose_recipe(recipe, overrides or [], recipes)
    except HydraException as error:
        raise typer.BadParameter(str(error)) from error
    report = check_config(config, overrides=overrides or [])
    for problem in report.problems:
        typer.echo(problem)
    for note in report.notes:
        typer.echo(note)
    typer.echo(report.summary())
    raise typer.Exit(1 if report.problems else 0)


make_strict(app)


def main() -> None:
    """Entry point of the program ``omniq``."""
    app()


if __name__ == "__main__":
    main()
