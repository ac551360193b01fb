"""``omniq findings``: what the score of a reasoning model rests on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.console import cli_errors
from omniq_verl.findings.options import with_setup
from omniq_verl.generation import options

if TYPE_CHECKING:
    from omniq_verl.findings.setup import Setup

app = typer.Typer(
    no_args_is_help=True, help="What a reasoning model's score is based on: measurements on your own model."
)


@app.command()
@with_setup
def attention(setup: "Setup") -> None:
    """Measure how the score attends to image, prompt and reasoning, by layer and head (RALI, figure 3).

    Example: omniq findings attention --model runs/stage2 --data koniq/test.parquet --limit 200 --out runs/attention
    """
    with cli_errors() as console:
        from omniq_verl.findings.attention import find_attention

        find_attention(setup, console)


@app.command()
@with_setup
def swap(
    setup: "Setup",
    vision: Annotated[str, typer.Option(help="Model whose vision tower the others get.")],
) -> None:
    """Give every model another checkpoint's vision tower, and measure both (RALI, table 1).

    Example: omniq findings swap --vision models/base --model runs/koniq --model runs/kadid --data csiq/test.parquet
    --out runs/swap
    """
    with cli_errors() as console:
        from omniq_verl.findings.swap import find_swap

        find_swap(setup, vision, console)


@app.command("self-consistency")
@with_setup
def self_consistency(
    setup: "Setup",
    samples: Annotated[
        int, typer.Option(min=2, help="Sampled answers per image; the means of 1, 2, 4, ... are measured.")
    ] = 16,
    temperature: Annotated[float, typer.Option(min=0.01, help="Sampling temperature of the answers.")] = 1.0,
) -> None:
    """Compare the mean of k sampled answers with one greedy answer: SRCC over the tokens that they take.

    Example: omniq findings self-consistency --model runs/stage2 --data koniq/test.parquet --samples 16 --out runs/k
    """
    with cli_errors() as console:
        from omniq_verl.findings.self_consistency import find_self_consistency

        find_self_consistency(setup, samples, temperature, console)


@app.command("text-only")
@with_setup
def text_only(setup: "Setup") -> None:
    """Measure how well the reasoning text alone predicts the score, compared with the image.

    With two models, each also reads the other's texts.

    Example: omniq findings text-only --model runs/stage2 --data koniq/test.parquet --limit 500 --out runs/text_only
    """
    with cli_errors() as console:
        from omniq_verl.findings.text_only import find_text_only

        find_text_only(setup, console)


@app.command("domain-gap")
@with_setup
def domain_gap(
    setup: "Setup",
    clip: Annotated[
        str | None, typer.Option(help="CLIP whose text features of the reasoning are measured, too.")
    ] = None,
    layer: Annotated[
        int, typer.Option(help="Layer whose hidden states are used; -1: the last, 0: the embeddings.")
    ] = -1,
    by: Annotated[str | None, typer.Option(help="Key of the rows' details to group by instead of data sets.")] = None,
) -> None:
    """Measure how far apart data sets are in visual tokens and in reasoning tokens (RALI, figures 2 and 4).

    Example: omniq findings domain-gap --model runs/base --model runs/stage2 --data koniq/test.parquet
    --data spaq/test.parquet --limit 500 --out runs/gap
    """
    with cli_errors() as console:
        from omniq_verl.findings.domain_gap import find_domain_gap

        find_domain_gap(setup, clip, layer, by, console)


@app.command("reward-hacking")
def reward_hacking(
    run: Annotated[Path, typer.Option(file_okay=False, help="Folder of a GRPO run (trainer.default_local_dir).")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the page, the plots and the numbers.")],
    answers: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder with STEP.jsonl; default: validation or rollouts in --run."),
    ] = None,
    resamples: options.RESAMPLES = 1000,
) -> None:
    """Check whether a run earns its reward by better scores, or by length, repetition, or scores near the middle.

    Example: omniq findings reward-hacking --run runs/stage1 --out runs/hacking
    """
    with cli_errors() as console:
        from omniq_verl.findings.reward_hacking import find_reward_hacking

        find_reward_hacking(run, answers, out, resamples, console)


@app.command()
@with_setup
def gate(
    setup: "Setup",
    rho: Annotated[float, typer.Option(help="Share of tokens that the entropy gate lets pass.")] = 0.2,
    gradients: Annotated[
        int, typer.Option(min=0, help="Tokens to compute the gradient with respect to all weights for.")
    ] = 64,
) -> None:
    """Show which words carry the entropy, what the gate keeps, and how entropy and gradient correlate.

    Example: omniq findings gate --model runs/stage1 --data koniq/test.parquet --limit 200 --out runs/gate
    """
    with cli_errors() as console:
        from omniq_verl.findings.gate import find_gate

        find_gate(setup, rho, gradients, console)


@app.command("no-reasoning")
@with_setup
def no_reasoning(setup: "Setup") -> None:
    """Compare one model with and without reasoning: SRCC, time and tokens (RALI, table A.1).

    Example: omniq findings no-reasoning --model runs/stage2 --data koniq/test.parquet --data spaq/test.parquet
    --out runs/no_reasoning
    """
    with cli_errors() as console:
        from omniq_verl.findings.no_reasoning import find_no_reasoning

        find_no_reasoning(setup, console)


@app.command("sft-data")
def sft_data(
    data: Annotated[list[Path], typer.Option(help="Prepared training file of a task without reasoning.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Parquet file for verl's SFT trainer.")],
) -> None:
    """Write SFT rows whose answer is the label alone, to train without reasoning (RALI, table A.1).

    Example: omniq findings sft-data --data data/koniq_direct/train.parquet --out data/koniq_direct/sft.parquet
    """
    with cli_errors() as console:
        from omniq_verl.findings.sft_data import write_sft_data

        console.print(f"{write_sft_data(data, out)} rows: {out}", soft_wrap=True, markup=False)
