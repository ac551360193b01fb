"""``omniq ract``: reasoning text as the common label of data sets."""

from pathlib import Path
from typing import Annotated

import typer

from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

app = typer.Typer(no_args_is_help=True, help="RACT: reasoning text as the common label of data sets.")


@app.callback()
def ract() -> None:
    """RACT: reasoning text as the common label of data sets."""


@app.command()
def align(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; all keys may be given as KEY=VALUE instead.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. scores=\\[koniq].")] = None,
    verbose: options.VERBOSE = False,
) -> None:
    """Each domain's model reasons about its own images; out comes one SFT file. Goes on where it was stopped.

    Example: omniq ract align domains.koniq.model=runs/koniq 'domains.koniq.data=\\[data/koniq/train*.parquet]'
    domains.spaq.model=runs/spaq 'domains.spaq.data=\\[data/spaq/train*.parquet]' out=runs/ract

    Keys: domains.NAME.model and domains.NAME.data are needed; `omniq ract keys` prints all with their defaults.
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
