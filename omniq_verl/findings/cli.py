"""``omniq findings``: what the score of a reasoning model rests on."""

from typing import TYPE_CHECKING

import typer

from omniq_verl.findings.options import with_setup
from omniq_verl.saying import errors_said

if TYPE_CHECKING:
    from omniq_verl.findings.setup import Setup

app = typer.Typer(no_args_is_help=True, help="What a reasoning model's score rests on: measurements on your own model.")


@app.command()
@with_setup
def attention(setup: "Setup") -> None:
    """Share of attention from the score to image, prompt and reasoning, by layer and head (RALI's figure 3).

    Example: omniq findings attention --model runs/stage2 --data koniq/test.parquet --limit 200 --out runs/attention
    """
    with errors_said() as console:
        from omniq_verl.findings.attention import find_attention

        find_attention(setup, console)
