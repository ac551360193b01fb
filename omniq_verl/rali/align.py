"""Contrastive alignment of the image encoder with the reasoning about each image (RALI sec. 4, figure 5).

The text encoder is frozen, so each text is encoded once before the first step, and a step runs only the image encoder.
Texts longer than the text encoder's limit (77 tokens for CLIP, 64 for SigLIP) are truncated; the end token is kept.

On several GPUs: ``torchrun --standalone --nproc-per-node 8 -m omniq_verl.cli rali align ...``. The loss covers the
images of all GPUs, so a batch means the same on any number of them.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer, SiglipModel

from omniq_verl.data.files import atomic_path, replace_text
from omniq_verl.generation.model_folder import expanded
from omniq_verl.generation.store import Store, read_store
from omniq_verl.rali.distributed import Ranks
from omniq_verl.rali.encoder import ImageEncoder, TwoTowers, encoder_of, open_model, open_preprocessing, save_whole
from omniq_verl.rali.losses import LOSSES
from omniq_verl.rali.pairs import read_pairs
from omniq_verl.rali.pixels import cached_pixels, remove_pixels
from omniq_verl.rali.texts import Texts

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class AlignConfig:
    """Settings of an alignment."""

    pairs: Path
    """``pairs.parquet`` written by ``omniq rali pairs``."""
    out: Path
    """The run's folder. An interrupted run resumes. At the end ``out/model`` is an ordinary Hugging Face folder."""
    model: str = "openai/clip-vit-large-patch14-336"
    """Hugging Face folder or name of a CLIP or SigLIP model; sec. 5.1."""
    texts: int | None = None
    """Use only the first N texts of each image; None: all. 1 is case 4 of table 4. Every epoch draws one of them."""
    epochs: int = 10
    """Passes over all images. The paper gives 10 for RACT and no number for RALI."""
    batch: int = 128
    """Images contrasted per step, over all GPUs; the paper gives no number."""
    learning_rate: float = 1e-5
    """Learning rate of AdamW, constant; sec. 5.1."""
    weight_decay: float = 0.01
    """AdamW's default."""
    max_gradient: float = 1.0
    """Maximum norm of the gradient, for clipping; our choice."""
    precision: str = "bf16"
    """bf16: the encoder computes in bf16, with weights and optimizer in float32; or fp32. Our choice."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, much less memory."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of the order of images and of the choice of texts."""
    allow_pickle: bool = False
    """Load pickled weights, which can run arbitrary code."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if min(self.epochs, self.save_every) < 1 or self.batch < 2 or self.learning_rate <= 0 or self.seed < 0:
            raise ValueError(f"epochs and save_every must be >= 1, batch >= 2, learning_rate > 0; got {self}")
        if self.texts is not None and self.texts < 1:
            raise ValueError(f"texts must be >= 1, got {self.texts}")


def align(config: AlignConfig, console: Console) -> Path:
    """Train, or resume training, and return the folder of the aligned model.

    Until the end ``out`` has ``checkpoint.safetensors``. ``metrics/*.jsonl`` has a line per step: ``loss``,
    ``accuracy`` (share of images whose text is the nearest) and ``gradient`` (its norm).

    Raises:
        ValueError: the pairs or the model cannot be read, there are too few images, or ``out`` was started with other
            settings.
        FloatingPointError: a loss was not finite.
    """
    done = config.out / "model"
    ranks = Ranks.join()
    with ranks, _store(config, ranks) as store:
        if not done.is_dir():
            run = _Run(config, ranks)
            store.check_files(run.refs)
            if ranks.first:
                _print_summary(run, config, console)
            _train(run, store, console)
            if ranks.first:
                _save_model(run, done)
                _checkpoint(config).unlink(missing_ok=True)  # large and no longer needed, like the pixels
                remove_pixels(config.out)
    return done


class _NoStore:
    """Does nothing; used by all processes except the first."""

    def __enter__(self) -> "_NoStore":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def add(self, _records: object) -> None:
        pass

    def check_files(self, _refs: object) -> None:
        pass


def _store(config: AlignConfig, ranks: Ranks) -> Store | _NoStore:
    if not ranks.first:
        return _NoStore()
    digest = hashlib.blake2b(
        config.pairs.read_bytes(), digest_size=16
    ).hexdigest()  # other pairs may have the same name
    left_out = ("out", "save_every", "checkpointing", "allow_pickle")  # these do not affect the weights
    settings = {name: value for name, value in asdict(config).items() if name not in left_out}
    # The checkpoint and the model belong to these settings, too.
    return Store(config.out / "metrics", {**settings, "pairs": digest}, run=config.out)


class _Run:
    """State of a training."""

    def __init__(self, config: AlignConfig, ranks: Ranks):
        self.config, self.ranks = config, ranks
        self.model = open_model(config.model, config.allow_pickle).requires_grad_(False)
        preprocessing = open_preprocessing(config.model)
        pairs = read_pairs(config.pairs)
        if config.batch % ranks.number:
            raise ValueError(f"a batch of {config.batch} cannot be divided evenly between {ranks.number} processes")
        if len(pairs) < 2:
            raise ValueError(f"{config.pairs} has {len(pairs)} images, but contrastive training needs at least 2")
        self.batch = min(config.batch, len(pairs) // ranks.number * ranks.number)
        self.texts = Texts(self.model, config.model, [texts[: config.texts] for _, texts in pairs], ranks.device)
        self.refs = [ref for ref, _ in pairs]
        with ranks.first_then_others():
            self.pixels = cached_pixels(self.refs, preprocessing, config.out)
        self.encoder = prepare_encoder(encoder_of(self.model, preprocessing), config.checkpointing).to(ranks.device)
        self.scale, self.bias = logits_of(self.model)
        parameters = trained_parameters(self.encoder)
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.wrapped = ranks.wrap(self.encoder)

    @property
    def steps_an_epoch(self) -> int:
        return len(self.pixels) // self.batch


def prepare_encoder(encoder: ImageEncoder, checkpointing: bool) -> ImageEncoder:
    """Make the encoder ready for training."""
    encoder.train().requires_grad_(True)
    if checkpointing:
        encoder.vision.gradient_checkpointing_enable({"use_reentrant": False})
    return encoder


def trained_parameters(encoder: ImageEncoder) -> list[nn.Parameter]:
    """All parameters of the image encoder, with its projection; the text encoder and the logit scale stay fixed."""
    return list(encoder.vision.parameters())


def logits_of(model: TwoTowers) -> tuple[float, float]:
    """Factor and offset that turn a model's cosines into logits."""
    bias = float(model.logit_bias.detach()) if isinstance(model, SiglipModel) else 0.0
    return float(model.logit_scale.detach().exp()), bias


def order_of(epoch: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Order of the images in an epoch, and for each image a number in [0, 1) that selects its text.

    The result depends only on the arguments, so a resumed run needs no generator state.
    """
    random = np.random.default_rng([seed, epoch])
    return random.permutation(images), random.random(images)


def _batches(run: _Run, first: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Steps from ``first`` on: indices of the images over all processes, and the numbers that select their texts.

    The incomplete last batch of an epoch is dropped, because a loss depends on the number of images it contrasts.
    """
    for step in range(first, run.config.epochs * run.steps_an_epoch):
        epoch, number = divmod(step, run.steps_an_epoch)
        order, random = order_of(epoch, len(run.pixels), run.config.seed)
        mine = slice(number * run.batch, (number + 1) * run.batch)
        yield step, order[mine], random[mine]


def _train(run: _Run, store: Store | _NoStore, console: Console) -> None:
    first, every = _restore(run), run.config.save_every
    last = run.config.epochs * run.steps_an_epoch
    for step, images, random in _batches(run, first):
        metrics = _step(run, images, random)
        store.add([{"key": f"{step:08d}", "step": step, **metrics}])
        if run.ranks.first and ((step + 1) % every == 0 or step + 1 == last):
            _save_checkpoint(run, step + 1)
            console.print(f"step {step + 1} of {last}: loss {metrics['loss']:.4f}", markup=False)


def _step(run: _Run, images: np.ndarray, random: np.ndarray) -> dict[str, float]:
    mine = images[run.ranks.share(len(images))]
    texts = run.texts.draw(images, random)
    pixels = torch.from_numpy(run.pixels[mine]).to(run.ranks.device)
    with torch.autocast(run.ranks.device.type, torch.bfloat16, enabled=run.config.precision == "bf16"):
        embeddings = run.wrapped(pixels)
    cosines = run.ranks.gather(embeddings) @ run.texts.features[texts.to(run.ranks.device)].T
    same = (texts[:, None] == texts[None, :]).to(run.ranks.device)
    loss = LOSSES[run.model.config.model_type](cosines * run.scale + run.bias, same)
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite. Fix: use a smaller learning rate or precision fp32")
    run.optimizer.zero_grad()
    (loss * run.ranks.number).backward()  # DDP averages over processes; each has only its own images' gradient
    gradient = nn.utils.clip_grad_norm_(run.encoder.parameters(), run.config.max_gradient)
    run.optimizer.step()
    right = same.gather(1, cosines.argmax(dim=1, keepdim=True))
    return {"loss": loss.item(), "accuracy": right.float().mean().item(), "gradient": float(gradient)}


def _checkpoint(config: AlignConfig) -> Path:
    return config.out / "checkpoint.safetensors"


def _save_checkpoint(run: _Run, step: int) -> None:
    """Save weights and optimizer state as named tensors, so that nothing is pickled."""
    tensors = {}
    for name, parameter in run.encoder.named_parameters():
        state = run.optimizer.state[parameter]
        tensors |= {f"weight/{name}": parameter.detach(), f"mean/{name}": state["exp_avg"]}
        tensors[f"square/{name}"] = state["exp_avg_sq"]
    with atomic_path(_checkpoint(run.config)) as unfinished:
        save_file({name: one.cpu().contiguous() for name, one in tensors.items()}, unfinished, {"step": str(step)})


def _restore(run: _Run) -> int:
    """Load the checkpoint if there is one; returns the first step to run."""
    path = _checkpoint(run.config)
    if not path.exists():
        return 0
    with safe_open(path, framework="pt", device=str(run.ranks.device)) as file:
        step = int(file.metadata()["step"])
        for name, parameter in run.encoder.named_parameters():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight/{name}"))
            run.optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": file.get_tensor(f"mean/{name}"),
                "exp_avg_sq": file.get_tensor(f"square/{name}"),
            }
    return step


def _save_model(run: _Run, folder: Path) -> None:
    run.model.to("cpu")  # pyright: ignore[reportArgumentType]  its decorator hides the parameters
    name = expanded(run.config.model)
    parts = (AutoTokenizer.from_pretrained(name), AutoImageProcessor.from_pretrained(name))
    save_whole(folder, run.model, *parts)


def _print_summary(run: _Run, config: AlignConfig, console: Console) -> None:
    about = {
        "images": len(run.pixels),
        "texts": len(run.texts.which),
        "different_texts": len(run.texts.features),
        "cut_texts": run.texts.cut,
        "most_tokens": run.texts.most_tokens,
        "trained_parameters": sum(one.numel() for one in trained_parameters(run.encoder)),
        "batch": run.batch,
        "steps": config.epochs * run.steps_an_epoch,
        "processes": run.ranks.number,
    }
    replace_text(config.out / "about.json", json.dumps(about, indent=2) + "\n")
    console.print(
        ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in about.items()), markup=False, soft_wrap=True
    )
    if run.texts.cut:
        console.print(
            f"{run.texts.cut:,} of {about['different_texts']:,} texts are longer than {run.texts.most_tokens} tokens:"
            " their ends are truncated",
            markup=False,
            soft_wrap=True,
        )


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The steps of a run, each once, in order."""
    return sorted(read_store(out / "metrics"), key=lambda one: one["step"])
