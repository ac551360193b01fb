"""``omniq reproduce``: from data to a paper's tables, with one command that resumes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.console import cli_errors

if TYPE_CHECKING:
    from rich.console import Console

    from omniq_verl.pipeline.experiment import Experiment
    from omniq_verl.pipeline.stage import Stage


def reproduce(
    experiment: Annotated[str, typer.Argument(help="omniquality_r, q_insight, ract, rali or findings.")],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[SEED|STAGE]...", help="More values for --seeds or --only.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the run; the same command resumes it.")],
    scale: Annotated[
        str, typer.Option(help="tiny: a tiny model on two CPU cores; paper: the paper's models and data.")
    ] = "tiny",
    seeds: Annotated[list[int] | None, typer.Option(help="Seeds, e.g. --seeds 0 1 2; default: 0.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these stages and those they depend on, e.g. --only sft 'stage1*'.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder with the data sets as their owners publish them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model, a folder or a name; default: the paper's. For --scale paper.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Maximum number of stages to run at once.")] = 1,
    changed: Annotated[
        str,
        typer.Option(help="If settings, data or code of finished stages changed: stop; keep (code only); or again."),
    ] = "stop",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print stages and their cost, and start nothing.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show which stages are done and which data sets you have.")
    ] = False,
) -> None:
    """Reproduce the tables of a paper: data, training, evaluation, and tables next to the paper's.

    Example: omniq reproduce omniquality_r --scale tiny --out runs/omniquality_r --seeds 0 1 2

    Every stage is a command whose output goes to OUT/logs. If it is killed, the same command resumes. At the end,
    OUT/tables.md has every table with the paper's numbers, and lists what was not run.
    """
    with cli_errors() as console:
        from omniq_verl.pipeline.experiments import build
        from omniq_verl.pipeline.stage import MissingData, chosen, needs

        _check_options(changed, status, dry_run, needs_data=scale == "paper" and data is None)
        numbers, names = surplus(more or [], bool(seeds), bool(only))
        asked = (experiment, scale, out, [*(seeds or []), *numbers] or [0])
        try:
            found = build(*asked, data, model)
        except MissingData as error:
            if not dry_run:
                raise
            console.print(
                f"{error}. The plan below assumes that all data sets are available.", style="yellow", markup=False
            )
            found = build(*asked, None, model)
        root = out.resolve()
        need = needs(found.stages, root)
        wanted = [*(only or []), *names]
        stages = chosen(found.stages, wanted, need) if wanted else found.stages
        if status:
            _show_status(stages, found, root, need, data, console)
        elif dry_run:
            _show_plan(stages, found, root, console)
        else:
            _run(stages, found, root, need, jobs, changed, console)


def _check_options(changed: str, status: bool, dry_run: bool, needs_data: bool) -> None:
    from omniq_verl.pipeline.runner import CHANGED

    if changed not in CHANGED:
        raise ValueError(f"--changed {changed} is none of {', '.join(CHANGED)}. Fix: use one of them")
    if status and dry_run:
        raise ValueError("--status and --dry-run show different things. Fix: give one of them")
    if needs_data and not (dry_run or status):
        raise ValueError("--scale paper needs data. Fix: add --data FOLDER; --status lists what belongs in it")


def surplus(words: list[str], seeds_given: bool, only_given: bool) -> tuple[list[int], list[str]]:
    """Words after the first value of ``--seeds`` and ``--only``: numbers are seeds, all others stages.

    Raises:
        BadParameter: there are some, and the option they belong to was not given.
    """
    numbers = [int(word) for word in words if word.isdecimal()]
    names = [word for word in words if not word.isdecimal()]
    for given, found, option in ((seeds_given, numbers, "--seeds"), (only_given, names, "--only")):
        if found and not given:
            raise typer.BadParameter(f"{found[0]} belongs to no option. Fix: put {option} before it, or leave it out")
    return numbers, names


def _show_status(
    stages: "list[Stage]", found: "Experiment", root: Path, need: dict, data: Path | None, console: "Console"
) -> None:
    from omniq_verl.pipeline.status import print_status, stage_states

    print_status(stage_states(stages, root, need), console)
    if found.scale == "paper":
        from omniq_verl.pipeline.data_status import print_data_status, survey

        print_data_status(survey(data), console)


def _show_plan(stages: "list[Stage]", found: "Experiment", root: Path, console: "Console") -> None:
    from omniq_verl.pipeline.cost_report import print_plan

    print_plan(stages, found, root, console)


def _run(
    stages: "list[Stage]",
    found: "Experiment",
    root: Path,
    need: dict,
    jobs: int,
    changed: str,
    console: "Console",
) -> None:
    from omniq_verl.doctor.free_space import usable_gpus
    from omniq_verl.pipeline.process import run_folder_lock
    from omniq_verl.pipeline.runner import run_stages
    from omniq_verl.pipeline.tables import print_tables, write_tables

    try:
        with run_folder_lock(root):
            run_stages(stages, root, console, jobs, usable_gpus(), changed, need)
            print_tables(write_tables(found, root), console)
    except KeyboardInterrupt:
        console.print("stopped; the same command resumes from here")
        raise typer.Exit(1) from None
    console.print(f"tables: {root / 'tables.md'}", markup=False, soft_wrap=True)
