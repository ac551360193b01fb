"""``omniq recipes`` and ``omniq data``: list packaged recipes and scripts, and run scripts."""

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from omniq_verl import packaged
from omniq_verl.console import cli_errors

FOLDER = Annotated[
    Path | None, typer.Option("--recipes", help="Folder of recipes; default: ./recipes if it exists, else our own.")
]

recipes = typer.Typer(help="List the training recipes, show one, or print their folder.")


@recipes.callback(invoke_without_command=True)
def list_recipes(ctx: typer.Context, folder: FOLDER = None) -> None:
    """List the training recipes, show one, or print their folder.

    Example: omniq recipes
    """
    ctx.obj = folder
    if ctx.invoked_subcommand is not None:
        return
    with cli_errors():
        found = packaged.recipes_folder(folder)
        names = packaged.recipe_names(found)
        width = max(map(len, names), default=0)
        for name in names:
            typer.echo(
                f"{name:<{width}}  {packaged.summary(packaged.recipe_file(found, name).read_text(encoding='utf-8'))}"
            )


@recipes.command()
def show(
    ctx: typer.Context, name: Annotated[str, typer.Argument(help="Name of the recipe, e.g. quickstart/grpo.")]
) -> None:
    """Print a recipe.

    Example: omniq recipes show quickstart/grpo
    """
    with cli_errors():
        typer.echo(packaged.recipe_file(packaged.recipes_folder(ctx.obj), name).read_text(encoding="utf-8"), nl=False)


@recipes.command()
def path(ctx: typer.Context) -> None:
    """Print the folder of the recipes, for ``--config-dir`` of verl's trainers.

    Example: python -m verl.trainer.main_ppo --config-dir "$(omniq recipes path)" --config-name quickstart/grpo
    """
    with cli_errors():
        typer.echo(packaged.recipes_folder(ctx.obj).resolve())


def data(
    script: Annotated[str | None, typer.Argument(help="Name of the data set or script, e.g. koniq.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTIONS]...", help="Options of the script; --help lists them.")
    ] = None,
) -> None:
    """Prepare a data set: label files and images become parquet files. Without a name: list all scripts.

    Example: omniq data koniq --root koniq10k --out data/koniq

    `omniq data status --data FOLDER` shows which data sets are in a folder, and where to get the others.
    """
    if script is None:
        names = packaged.script_names()
        for name in names:
            typer.echo(f"{name:<{max(map(len, names))}}  {packaged.script_summary(name)}")
        return
    if script == "status":
        from omniq_verl.pipeline.data_status import main

        return main(arguments or [])
    try:
        file = packaged.script_file(script)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    before, sys.argv = sys.argv, [f"omniq data {script}", *(arguments or [])]
    try:
        runpy.run_path(str(file), run_name="__main__")
    finally:
        sys.argv = before
