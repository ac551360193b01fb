"""``omniq findings``: what the score of a reasoning model rests on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.console import cli_errors
from omniq_verl.findings.options import with_setup
from omniq_verl.generation import options

if TYPE_CHECKING:
    from omniq_verl.findings.setup import Setup

app = typer.Typer(no_args_is_help=True, help="What a reasoning model's score rests on: measurements on your own model.")


@app.command()
@with_setup
def attention(setup: "Setup") -> None:
    """Share of attention from the score to image, prompt and reasoning, by layer and head (RALI's figure 3).

    Example: omniq findings attention --model runs/stage2 --data koniq/test.parquet --limit 200 --out runs/attention
    """
    with cli_errors() as console:
        from omniq_verl.findings.attention import find_attention

        find_attention(setup, console)


@app.command()
@with_setup
def swap(
    setup: "Setup",
    vision: Annotated[str, typer.Option(help="Folder of the model whose vision tower the others get.")],
) -> None:
    """Every model's language model under the vision tower of another checkpoint, measured beside it (RALI's table 1).

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
    samples: Annotated[int, typer.Option(min=2, help="Sampled answers an image; 1, 2, 4, ... are measured.")] = 16,
    temperature: Annotated[float, typer.Option(min=0.01, help="Sampling temperature of the answers.")] = 1.0,
) -> None:
    """The mean of k sampled answers against one greedy answer: SRCC against the tokens that they take.

    Example: omniq findings self-consistency --model runs/stage2 --data koniq/test.parquet --samples 16 --out runs/k
    """
    with cli_errors() as console:
        from omniq_verl.findings.self_consistency import find_self_consistency

        find_self_consistency(setup, samples, temperature, console)


@app.command("text-only")
@with_setup
def text_only(setup: "Setup") -> None:
    """How well the score follows from the text of the reasoning alone, against the image.

    A second --model also reads the first one's texts, and the first the second's.

    Example: omniq findings text-only --model runs/stage2 --data koniq/test.parquet --limit 500 --out runs/text_only
    """
    with cli_errors() as console:
        from omniq_verl.findings.text_only import find_text_only

        find_text_only(setup, console)


@app.command("domain-gap")
@with_setup
def domain_gap(
    setup: "Setup",
    clip: Annotated[str | None, typer.Option(help="CLIP whose features of the reasoning are measured, too.")] = None,
    layer: Annotated[int, typer.Option(help="Hidden states of this layer; -1: the last, 0: the embeddings.")] = -1,
    by: Annotated[str | None, typer.Option(help="Key of the rows' details whose values stand for data sets.")] = None,
) -> None:
    """How far data sets are apart in visual tokens and in reasoning tokens (RALI's figures 2 and 4).

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
        typer.Option(file_okay=False, help="Folder of STEP.jsonl; default: validation or rollouts in the run's."),
    ] = None,
    resamples: options.RESAMPLES = 1000,
) -> None:
    """Whether a run's reward is earned by better scores, or by length, repetition, or scores near the middle.

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
    gradients: Annotated[int, typer.Option(min=0, help="Tokens whose gradient by all weights is taken.")] = 64,
) -> None:
    """Which words carry the entropy, what the entropy gate keeps, and how entropy and gradient go together.

    Example: omniq findings gate --model runs/stage1 --data koniq/test.parquet --limit 200 --out runs/gate
    """
    with cli_errors() as console:
        from omniq_verl.findings.gate import find_gate

        find_gate(setup, rho, gradients, console)


@app.command("no-reasoning")
@with_setup
def no_reasoning(setup: "Setup") -> None:
    """The same model with and without reasoning: SRCC, time and tokens (RALI's table A.1).

    Example: omniq findings no-reasoning --model runs/stage2 --data koniq/test.parquet --data spaq/test.parquet
    --out runs/no_reasoning
    """
    with cli_errors() as console:
        from omniq_verl.findings.no_reasoning import find_no_reasoning

        find_no_reasoning(setup, console)


@app.command("sft-data")
def sft_data(
    data: Annotated[list[Path], typer.Option(help="Prepared train file of a task without reasoning.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Parquet file for verl's SFT trainer.")],
) -> None:
    """Rows whose answer is the label alone, for supervised training without reasoning (RALI's table A.1).

    Example: omniq findings sft-data --data data/koniq_direct/train.parquet --out data/koniq_direct/sft.parquet
    """
    with cli_errors() as console:
        from omniq_verl.findings.sft_data import write_sft_data

        console.print(f"{write_sft_data(data, out)} rows: {out}", soft_wrap=True, markup=False)
