"""Stages of runs at real size, which all papers share."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omniq_verl.pipeline.commands import flags, listed, module, omniq, recipe_words
from omniq_verl.pipeline.data_sets import BY_NAME
from omniq_verl.pipeline.stage import Stage, Work

GPUS = 4
QWEN_7B = "Qwen/Qwen2.5-VL-7B-Instruct"
HOUR = 3600
ANSWER_TOKENS = 256
"""Tokens of an answer: an assumption, as no trained 7B model has been measured here."""
IMAGE_SIZE = {"spaq": ("--short-side", "768")}
"""Bounds of preparation, which training and evaluation then share. SPAQ's photographs have up to 4032 x 3024 pixels, or
15,552 tokens. None of the four papers gives a size; this is the one of VisualQuality-R1's author. The images of the
other sets keep their sizes."""
IN_ONE_FILE = 100_000
"""Rows of a parquet file: verl takes names of files, not patterns, so that training sets are one file each."""


@dataclass(frozen=True)
class Real:
    """One run at real size."""

    repo: Path
    root: Path
    data: Mapping[str, Path]
    """Folders of the data sets that are there, by the names of their scripts."""
    model: str = QWEN_7B
    """Base model of all trainings."""
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Options of the script of each data set that is used, in the order in which they are prepared."""

    @property
    def recipes(self) -> Path:
        return self.repo / "recipes"

    def file(self, name: str, split: str) -> Path:
        """Prepared rows; a pattern for splits that may have several files."""
        return self.root / "data" / name / f"{split}.parquet"

    def tests(self, *names: str) -> list[Path]:
        """Test rows of those data sets that are there."""
        return [self.file(name, "test") for name in names if name in self.data]

    def training_rows(self, name: str) -> Path:
        """A pattern for the training rows, which fill several files where there are more than ``IN_ONE_FILE``."""
        return self.root / "data" / name / "train*.parquet"

    def below(self, seed: int, name: str) -> Path:
        return self.root / f"seed{seed}" / name

    def trained(self, seed: int, name: str) -> Path:
        """The model that ``grpo`` or ``sft`` leaves: the checkpoint that validated best, otherwise the newest."""
        return self.below(seed, f"{name}_model") / "huggingface"


def prepare(run: Real) -> list[Stage]:
    """Parquet rows of every data set that is used and there."""
    return [_prepare(run, name) for name in run.options if name in run.data]


def _prepare(run: Real, name: str) -> Stage:
    about, script = BY_NAME[name], str(run.repo / "data_prep" / f"{name}.py")
    words = flags(root=run.data[name], out=run.root / "data" / name)
    options = [*IMAGE_SIZE.get(name, ()), *run.options[name]]
    command = [sys.executable, script, *words, "--shard-rows", str(IN_ONE_FILE), *options]
    work = Work(images=about.images)
    title = f"{about.title} -> parquet"
    return Stage(f"data/{name}", title, command, reads=(run.data[name],), silence=4 * HOUR, work=work)


def mix(run: Real, seed: int, name: str, take: Mapping[str, int]) -> Stage:
    """So many training rows of each data set, in one file."""
    words = [f"{one}={rows}" for one, rows in take.items()]
    out = ["--out", str(run.below(seed, name)), "--seed", str(seed), "--shard-rows", str(IN_ONE_FILE)]
    script = [sys.executable, str(run.repo / "data_prep" / "mix.py"), "--root", str(run.root / "data")]
    after = tuple(f"data/{one}" for one in take)
    rows = sum(take.values())
    title = f"{rows:,} training rows: {', '.join(take)}"
    command, work = [*script, "--take", *words, *out], Work(images=rows)
    return Stage(f"seed{seed}/{name}", title, command, after=after, silence=4 * HOUR, work=work)


def grpo(
    run: Real,
    seed: int,
    name: str,
    recipe: str,
    start: Path | str,
    train: Sequence[Path],
    val: Sequence[Path],
    rows: int,
    epochs: int,
    batch: int,
    **overrides: Any,
) -> list[Stage]:
    """A GRPO training, and the link to its model; ``rows`` of an epoch, ``batch`` prompts of a step."""
    own = {
        "actor_rollout_ref.model.path": start,
        "data.train_files": listed(train),
        "data.val_files": listed(val),
        "data.seed": seed,
        "trainer.default_local_dir": run.below(seed, name),
    }
    command = module("verl.trainer.main_ppo", recipe_words(run.recipes, recipe, {**own, **overrides}))
    work = Work(images=rows * epochs, tokens=2 * ANSWER_TOKENS, model=run.model)
    return _training(run, seed, name, f"GRPO: {recipe}", command, rows // batch * epochs, work)


def sft(
    run: Real, seed: int, name: str, recipe: str, start: Path | str, train: Path, rows: int, epochs: int, batch: int
) -> list[Stage]:
    """Supervised training, and the link to its model; ``rows`` of an epoch, about, and ``batch`` of a step."""
    own = {
        "model.path": start,
        "data.train_files": train,
        "trainer.default_local_dir": run.below(seed, name),
    }
    command = module(*launcher("verl.trainer.sft_trainer"), recipe_words(run.recipes, recipe, own))
    work = Work(images=rows * epochs, tokens=ANSWER_TOKENS, model=run.model)
    return _training(run, seed, name, f"SFT: {recipe}", command, rows // batch * epochs, work)


def launcher(name: str) -> list[str]:
    """Words of torchrun for a module on all GPUs, whose processes die with torchrun.

    Alone it takes a free port, where all runs of a machine would share 29500; its address is given because it would
    take the host's name otherwise, which not every host can look up.
    """
    alone = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(GPUS)]
    return ["torch.distributed.run", *alone, "-m", "omniq_verl.pipeline.worker", name]


def _training(run: Real, seed: int, name: str, title: str, command: list[str], steps: int, work: Work) -> list[Stage]:
    full = f"seed{seed}/{name}"
    link = flags(run=run.below(seed, name), out=run.below(seed, f"{name}_model"))
    training = Stage(full, title, command, steps, gpus=GPUS, silence=HOUR, work=work)
    return [training, Stage(f"{full}_model", f"checkpoint of {name}", module("omniq_verl.pipeline.checkpoint", link))]


def measure(
    run: Real, seed: int, name: str, model: Path | str, files: Sequence[Path], more: Sequence[str] = ()
) -> list[Stage]:
    """`omniq eval` on the test rows that are there, one greedy answer each; no stage if there are none.

    ``more`` are further words of the command, e.g. of a family and a mode.
    """
    if not files:
        return []
    words = ["--model", model, "--data", *files, "--out", run.below(seed, f"{name}_test"), "--workers", GPUS]
    command = omniq("eval", *words, *more)
    answers = sum(test_rows(file.parent.name) for file in files)
    written = 0 if "direct" in more else answers
    work = Work(images=answers, answers=written, tokens=ANSWER_TOKENS, model=run.model)
    title = f"evaluation of {name} on {len(files)} sets"
    return [Stage(f"seed{seed}/{name}_test", title, command, gpus=GPUS, silence=HOUR, work=work)]


TESTS = {"koniq": 2_015, "ava": 19_930, "tad66k": 14_079, "evalmuse": 3_000, "dq495k": 1_000}
"""Rows of the test split; all images of the others. Q-Insight tests on 1,000 images of DQ-495K (its sec. 4.1)."""


def test_rows(name: str) -> int:
    """How many rows a data set is tested on, by the counts of its owners."""
    return TESTS.get(name, BY_NAME[name].images)
