"""Commands that draw the papers' figures from models and evaluations."""

from pathlib import Path
from typing import Annotated

import typer

from omniq_verl.console import cli_errors
from omniq_verl.generation import options
from omniq_verl.logs import set_up_logs

app = typer.Typer()


@app.command("side-by-side")
def side_by_side(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of omniq eval.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the page and the plot of lengths.")],
    images: Annotated[int, typer.Option(min=1, help="Images per data set.")] = 4,
    order: Annotated[
        str, typer.Option(help="spread: evenly over the labels; difference: where the error changes most.")
    ] = "spread",
) -> None:
    """Write a page with the reasoning of one or several models about the same images, and their answer lengths.

    Example: omniq side-by-side runs/score_only_eval runs/joint_eval --order difference --out runs/side_by_side
    """
    from omniq_verl.evaluation.side_by_side import ORDERS, write_page

    with cli_errors() as console:
        if order not in ORDERS:
            raise ValueError(f"--order is {order!r}. Fix: choose {' or '.join(ORDERS)}")
        console.print(f"page: {write_page(runs, out, images, order)}", soft_wrap=True, markup=False)


@app.command("word-entropy")
def word_entropy(
    model: Annotated[list[str], typer.Option(help="Folder of a model or a training run; repeatable.")],
    image: Annotated[list[Path], typer.Option(help="Image to ask about; repeatable.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the page and the numbers.")],
    task: options.TASK = "technical",
    prompt: Annotated[str | None, typer.Option(help="Text the images were generated from, for alignment.")] = None,
    max_tokens: options.MAX_TOKENS = 1024,
    scale: options.SCALE = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu; default: a GPU if there is one.")] = None,
    verbose: options.VERBOSE = False,
) -> None:
    """Write a page with the entropy of every word of each checkpoint's own answers about several images.

    Example: omniq word-entropy --model runs/stage1 --model runs/stage2 --image a.jpg --image b.jpg --out runs/words
    """
    set_up_logs(verbose)
    from omniq_verl.evaluation.word_entropy import draw_words

    with cli_errors() as console:
        page = draw_words(model, image, out, task, prompt, max_tokens, scale, device)
        console.print(f"page: {page}", soft_wrap=True, markup=False)


@app.command("reward-shapes")
def reward_shapes(
    out: Annotated[Path, typer.Option(dir_okay=False, help="Picture to write.")],
    sigma: Annotated[list[float] | None, typer.Option(help="Width of a Gaussian (default: 0.8); repeatable.")] = None,
    epsilon: Annotated[float, typer.Option(help="Largest error the threshold reward accepts.")] = 0.3,
) -> None:
    """Plot the Gaussian and the threshold reward over the error (OmniQuality-R, figure 11).

    Example: omniq reward-shapes --sigma 0.6 --sigma 0.8 --sigma 1.0 --out rewards.png
    """
    from omniq_verl.evaluation.reward_shapes import draw_reward_shapes

    with cli_errors() as console:
        picture = draw_reward_shapes(out, sigma or [0.8], epsilon)
        console.print(f"picture: {picture}", soft_wrap=True, markup=False)
