"""``omniq rali``: distil a reasoning model into an image encoder that scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniq_verl.command_line import reject_idle
from omniq_verl.console import cli_errors
from omniq_verl.generation import options

if TYPE_CHECKING:
    from omniq_verl.generation.spec import EngineSpec

app = typer.Typer(
    no_args_is_help=True,
    help="RALI: distil a reasoning model's judgement into an image encoder.",
)

ENCODER = Annotated[str, typer.Option(help="CLIP or SigLIP: Hugging Face folder or name.")]
FITTED = Annotated[Path, typer.Option(help="Folder of `omniq rali fit`.")]
DATA = Annotated[list[Path], typer.Option(help="Prepared parquet file. Repeatable.")]
MORE = Annotated[list[Path] | None, typer.Argument(help="Further prepared files.")]
DEVICE = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: a GPU if there is one.")]
DTYPE = Annotated[str, typer.Option(help="Data type of the encoder: float32 or bfloat16.")]
BATCH = Annotated[int, typer.Option(min=1, help="Images per batch of the encoder.")]
LIMIT = Annotated[int | None, typer.Option(min=1, help="Use only the first N rows of the data.")]
PICKLE = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run arbitrary code.")]
CLIP = "openai/clip-vit-large-patch14-336"


@app.command("import")
def import_official(
    release: Annotated[
        Path, typer.Argument(help="Folder with ckpt.pt, pca.pkl and best/, as ByteDance/Q-Insight has.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the converted RALI.")],
    scale: Annotated[str, typer.Option(help="Scale of its scores, which the release does not state, e.g. 1-5 or 0-1.")],
    task: options.TASK = "technical",
) -> None:
    """Convert the official release of RALI from pickles to safetensors, without running any of their code.

    Example: omniq rali import downloads/RALI --out runs/rali_official --scale 1-5
    """
    from omniq_verl.rali.official import import_release, read_scale

    with cli_errors() as console:
        model = import_release(release, out, read_scale(scale), task)
        ends = model.basis.scores_K.detach()
        console.print(f"{len(ends)} basis vectors, scores from {ends.min():.2f} to {ends.max():.2f}", markup=False)
        console.print(f"RALI: {out}", soft_wrap=True, markup=False)


@app.command()
@options.asks_a_model
def pairs(
    spec: "EngineSpec",
    data: DATA,
    out: options.OUT,
    more: MORE = None,
    seeds: Annotated[int, typer.Option(min=1, help="Answers per image, each sampled with its own seed.")] = 5,
    temperature: Annotated[float, typer.Option(help="Sampling temperature of the answers.")] = 1.0,
    max_tokens: options.MAX_TOKENS = 1024,
    workers: options.WORKERS = 1,
    batch: options.KEPT_AT_ONCE = 64,
    on: Annotated[str, typer.Option(help="ray, here (in this process) or auto.")] = "auto",
    limit: LIMIT = None,
    seed: options.SEED = 0,
) -> None:
    """Ask a reasoning model about every image several times and save its reasoning as image-text pairs.

    Example: omniq rali pairs --model runs/q_insight --data data/koniq/train*.parquet --out runs/pairs
    """
    from omniq_verl.generation.request import Sampling
    from omniq_verl.generation.runner import RunOptions
    from omniq_verl.rali.pairs import PairsConfig, make_pairs

    options.reject_idle_sampling(seeds, temperature)
    is_here = on == "here" or (on == "auto" and spec.kind == "openai")
    reject_idle({"workers": "in this process (--on here, or an endpoint)" if is_here else None})
    with cli_errors() as console:
        sampling = Sampling(seeds, temperature, max_tokens=max_tokens)
        run_options = RunOptions(on=on, workers=workers, batch=batch)
        counts = make_pairs(PairsConfig([*data, *(more or [])], out, spec, sampling, run_options, limit, seed), console)
        answers = ", ".join(f"{name} {number:,}" for name, number in counts["answers"].items())
        console.print(f"{counts['images_with_text']:,} of {counts['images']:,} images have text; answers: {answers}")
        console.print(f"pairs: {out / 'pairs.parquet'}", soft_wrap=True, markup=False)


@app.command()
def align(
    pairs: Annotated[Path, typer.Option(help="pairs.parquet of `omniq rali pairs`.")],
    out: options.OUT,
    model: ENCODER = CLIP,
    texts: Annotated[int | None, typer.Option(help="Use only the first N texts of each image. Default: all.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over all images.")] = 10,
    batch: Annotated[int, typer.Option(help="Images contrasted per step, over all GPUs.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-5,
    precision: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Save memory; takes a third more time.")
    ] = False,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed for the order of images and for which text is drawn.")] = 0,
    allow_pickle: PICKLE = False,
) -> None:
    """Train the image encoder on image-text pairs. The text encoder is frozen and truncates texts at 77 tokens (CLIP).

    Example: omniq rali align --pairs runs/pairs/pairs.parquet --out runs/align

    On several GPUs: torchrun --standalone --nproc-per-node 8 -m omniq_verl.cli rali align --pairs ... --out ...
    """
    from omniq_verl.rali.align import AlignConfig
    from omniq_verl.rali.align import align as train

    with cli_errors() as console:
        config = AlignConfig(
            pairs,
            out,
            model,
            texts,
            epochs,
            batch,
            learning_rate,
            precision=precision,
            checkpointing=checkpointing,
            save_every=save_every,
            seed=seed,
            allow_pickle=allow_pickle,
        )
        console.print(f"aligned model: {train(config, console)}", soft_wrap=True, markup=False)


@app.command()
def fit(
    data: DATA,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the fitted RALI model.")],
    more: MORE = None,
    model: ENCODER = CLIP,
    dimensions: Annotated[int, typer.Option(help="Size of an embedding after PCA. 0: no PCA.")] = 512,
    vectors: Annotated[int, typer.Option(help="Basis vectors (K).")] = 250,
    buckets: Annotated[int, typer.Option(help="Score buckets (N). 1: plain k-means.")] = 240,
    center: Annotated[bool, typer.Option("--center", help="Subtract the mean embedding before scoring.")] = False,
    epochs: Annotated[int, typer.Option(help="Epochs of fitting vectors and scores. 0: no fit.")] = 30,
    fit_batch: Annotated[int, typer.Option(help="Images per step of the fit.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the fit (AdamW).")] = 3e-2,
    temperature: Annotated[float, typer.Option(help="Temperature of the softmax over cosines.")] = 1.0,
    fit_projection: Annotated[bool, typer.Option("--fit-projection", help="Also fit the projection.")] = False,
    save_dtype: DTYPE = "float32",
    batch: BATCH = 64,
    device: DEVICE = None,
    limit: LIMIT = None,
    seed: Annotated[int, typer.Option(help="Seed for k-means and the order of images.")] = 0,
    allow_pickle: PICKLE = False,
) -> None:
    """Embed labelled images, compress the embeddings (PCA, k-means in score buckets), fit, and write one weights file.

    Example: omniq rali fit --model runs/align/model --data data/koniq/train*.parquet --out runs/rali
    """
    from omniq_verl.rali.compress import Compression
    from omniq_verl.rali.fit import Fit
    from omniq_verl.rali.fit_files import FitConfig, fit_files

    unfitted = None if epochs else "with --epochs 0"
    reject_idle(dict.fromkeys(("fit_batch", "learning_rate", "fit_projection"), unfitted))
    with cli_errors() as console:
        compression = Compression(dimensions or None, vectors, buckets, center, seed)
        run_options = Fit(epochs, fit_batch, learning_rate, 0.0, temperature, fit_projection, seed)
        files = [*data, *(more or [])]
        config = FitConfig(files, out, model, compression, run_options, save_dtype, batch, device, limit, allow_pickle)
        fit_files(config, console)


@app.command("eval")
def evaluate(
    model: FITTED,
    data: DATA,
    out: options.OUT,
    more: MORE = None,
    by: Annotated[list[str] | None, typer.Option(help="Also measure groups by this key of the rows' details.")] = None,
    limit: options.LIMIT = None,
    resamples: options.RESAMPLES = 1000,
    dtype: DTYPE = "float32",
    batch: BATCH = 16,
    device: DEVICE = None,
) -> None:
    """Evaluate a RALI model on prepared files, like `omniq eval`; `omniq compare` reads the results of both.

    Example: omniq rali eval --model runs/rali --data data/koniq/test*.parquet --out runs/rali_eval
    """
    from omniq_verl.rali.evaluate import EvalConfig
    from omniq_verl.rali.evaluate import evaluate as measure

    config = EvalConfig([*data, *(more or [])], out, model, device, dtype, batch, by or (), resamples, limit)
    with cli_errors() as console:
        measure(config, console)


@app.command()
def score(
    images: Annotated[list[Path], typer.Argument(help="Images and folders of images.")],
    model: FITTED,
    out: Annotated[Path | None, typer.Option(help="Table to write: .csv, .jsonl or .parquet.")] = None,
    dtype: DTYPE = "float32",
    batch: BATCH = 16,
    device: DEVICE = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the model first; worth it for many images.")
    ] = False,
) -> None:
    """Score images: a number and a level for each, or the reason why there is none.

    Example: omniq rali score photos/ --model runs/rali --out scores.csv

    Files that are not images, or that training would reject, are reported and skipped. With --out a killed run resumes.
    Exit code 1: nothing could be scored.
    """
    from omniq_verl.rali.score_files import score_files
    from omniq_verl.rali.scorer import RaliScorer

    with cli_errors() as console:
        found = score_files(RaliScorer(model, device, batch, dtype, compile), images, out, console)
    raise typer.Exit(0 if found else 1)


@app.command()
def export(
    model: FITTED,
    out: Annotated[Path, typer.Option(help="File to write: .onnx.")],
) -> None:
    """Export a RALI model to ONNX (pixels in, scores out) and check it against the original. Needs the extra "onnx".

    Example: omniq rali export --model runs/rali --out rali.onnx
    """
    from omniq_verl.rali.export import export_onnx

    with cli_errors() as console:
        off = export_onnx(model, out)
        console.print(f"{out}: scores within {off:.1e} of the original's", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
