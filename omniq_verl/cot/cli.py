"""``omniq cot``: plan-then-reason data."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

app = typer.Typer(no_args_is_help=True, help="Plan-then-reason data for SFT: plan, reason, select, or all three.")

CONFIG = Annotated[Path | None, typer.Argument(help="YAML file; all keys may be given as KEY=VALUE instead.")]
OVERRIDES = Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. engine.model=DIR data=\\[train.parquet].")]


@app.command()
def run(config: CONFIG = None, overrides: OVERRIDES = None, verbose: options.VERBOSE = False) -> None:
    """Plan, reason, select and report; goes on where it was stopped.

    Example: omniq cot run 'data=\\[data/koniq/train*.parquet]' engine.model=Qwen/Qwen2.5-VL-7B-Instruct out=runs/cot

    Most used keys: data, engine.model, out, paths, limit, seed, run_options.workers, plan.temperature,
    reason.temperature, select.max_pass_rate. The first two are required. `omniq cot keys` prints all keys.
    """
    set_up_logs(verbose)
    _go(config, overrides, ("plan", "reason", "select"))


@app.command()
def plan(config: CONFIG = None, overrides: OVERRIDES = None, verbose: options.VERBOSE = False) -> None:
    """A plan for every row, from its task alone.

    Example: omniq cot plan cot.yaml run_options.workers=4
    """
    set_up_logs(verbose)
    _go(config, overrides, ("plan",))


@app.command()
def reason(config: CONFIG = None, overrides: OVERRIDES = None, verbose: options.VERBOSE = False) -> None:
    """Reasoning paths for every row with a plan.

    Example: omniq cot reason cot.yaml paths=8 run_options.workers=4
    """
    set_up_logs(verbose)
    _go(config, overrides, ("reason",))


@app.command()
def select(config: CONFIG = None, overrides: OVERRIDES = None) -> None:
    """Keep what is right, write sft.parquet and report.html; may be done again with other bounds.

    Example: omniq cot select cot.yaml select.max_pass_rate=0.9
    """
    _go(config, overrides, ("select",))


@app.command()
def keys() -> None:
    """Print all keys with their defaults, as a YAML file to start from.

    Example: omniq cot keys > cot.yaml
    """
    from omniq_verl.cot.run import CotConfig
    from omniq_verl.generation.config import default_settings

    typer.echo(default_settings(CotConfig), nl=False)


def _go(path: Path | None, overrides: list[str] | None, stages: tuple[str, ...]) -> None:
    from omniq_verl.cot.run import CotConfig, make_paths, make_plans
    from omniq_verl.generation.config import read_config

    steps: dict[str, Callable[[Any, Any], None]] = {"plan": make_plans, "reason": make_paths, "select": _select}
    with cli_errors() as console:
        config = read_config(CotConfig, path, overrides or [])
        for stage in stages:
            steps[stage](config, console)


def _select(config: Any, console: Any) -> None:
    from omniq_verl.cot.report import print_counts, write_report
    from omniq_verl.cot.run import select_paths

    counts = select_paths(config)
    print_counts(counts, console)
    console.print(f"SFT data: {Path(config.out) / 'sft.parquet'}", soft_wrap=True)
    console.print(f"report: {write_report(config, counts)}", soft_wrap=True)
