"""``omniq ract``: align data sets through reasoning text."""

from pathlib import Path
from typing import Annotated

import typer

from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

app = typer.Typer(no_args_is_help=True, help="RACT: align data sets through reasoning text.")


@app.callback()
def ract() -> None:
    """RACT: align data sets through reasoning text."""


@app.command()
def align(
    config: Annotated[Path | None, typer.Argument(help="YAML file. Keys can also be given as KEY=VALUE.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. scores=\\[koniq].")] = None,
    verbose: options.VERBOSE = False,
) -> None:
    """Have each domain's model reason about its own images, and write one SFT file. An interrupted run resumes.

    Example: omniq ract align domains.koniq.model=runs/koniq 'domains.koniq.data=\\[data/koniq/train*.parquet]'
    domains.spaq.model=runs/spaq 'domains.spaq.data=\\[data/spaq/train*.parquet]' out=runs/ract

    domains.NAME.model and domains.NAME.data are required; `omniq ract keys` prints all keys with their defaults.
    """
    set_up_logs(verbose)
    from omniq_verl.generation.config import read_config
    from omniq_verl.ract.align import AlignConfig
    from omniq_verl.ract.align import align as run

    with cli_errors() as console:
        run(read_config(AlignConfig, config, overrides or []), console)


@app.command()
def keys() -> None:
    """Print all keys with their defaults, as a YAML file to start from.

    Example: omniq ract keys > ract.yaml
    """
    from omniq_verl.generation.config import default_settings
    from omniq_verl.ract.align import AlignConfig

    typer.echo(default_settings(AlignConfig), nl=False)
