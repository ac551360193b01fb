"""The doctor and the recipes that are shipped: it accepts all of them, and finds what people break."""

from pathlib import Path

import pytest
from doctor_builders import RECIPES, checkpoint, png, record, tiny_model, written
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.rows import Row

NAMES = sorted(
    str(path.relative_to(RECIPES).with_suffix(""))
    for path in RECIPES.rglob("*.yaml")
    if path.relative_to(RECIPES).parts[0] not in ("base", "hardware")
)
ROWS = 256
"""A batch of the largest recipe."""
ANSWER = "<think>sharp</think><answer>3.8</answer>"


def sft_record(number: int, answer: str = ANSWER, images: int = 1) -> dict:
    messages = [{"role": "user", "content": "<image>Rate it."}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [{"bytes": png()}] * images, "extra_info": {"id": f"made/{number}"}}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    tiny_model(folder / "model")
    image = png()
    written(folder, [record(number, image) for number in range(ROWS)])
    written(folder, [sft_record(number) for number in range(ROWS)], "sft.parquet")
    sources = ("koniq", "ava", "evalmuse")
    rows = [Row(sources[number % 3], f"{number}", "technical", "train", 3.2) for number in range(ROWS)]
    written(folder, [row.record(number, image) for number, row in enumerate(rows)], "three_sources.parquet")
    return folder


def is_sft(name: str) -> bool:
    return name.endswith(("sft", "bootstrap", "q_align", "deqa"))


def words(name: str, folder: Path) -> list[str]:
    """What a user has to give a recipe."""
    if is_sft(name):
        return [
            f"data.train_files={folder}/sft.parquet",
            f"model.path={folder}/model",
            f"trainer.default_local_dir={folder}/x",
        ]
    data = "three_sources" if name.endswith("authors_code") else "train"  # it has settings for each of them
    files = [f"data.{kind}_files={folder}/{data}.parquet" for kind in ("train", "val")]
    return [*files, f"actor_rollout_ref.model.path={folder}/model", f"trainer.default_local_dir={folder}/x"]


def doctor(name: str, *more: str):
    return CliRunner().invoke(app, ["doctor", name, *more, "--recipes", str(RECIPES)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_accepted(healthy, name):
    result = doctor(name, *words(name, healthy))
    assert result.exit_code == 0, result.output
    assert "no problem found" in result.output
    assert "it has no effect" not in result.output and "no such setting" not in result.output


def test_comparisons_are_accepted_by_their_recipe(healthy, tmp_path):
    images = png(), png(24, 48)
    row = Row("pairs", "pairs/0", "q_insight_comparison", "train", choice="second")
    path = written(tmp_path, [row.record(number, *images) for number in range(32)])
    name = "q_insight/comparison"
    given = [*words(name, healthy), f"data.train_files={path}", f"data.val_files={path}"]
    result = doctor(name, *given)
    assert result.exit_code == 0 and "no problem found" in result.output, result.output
    result = doctor(name, *given, "data.max_prompt_length=100")
    assert result.exit_code == 1 and "data.max_prompt_length is 100" in result.output


GRPO, SFT = "omniquality_r/stage2", "omniquality_r/sft"


@pytest.mark.parametrize(
    ("name", "mistake", "said", "fix"),
    [
        (GRPO, "data.train_files=no.parquet", "no.parquet: there is no such file", "give an existing file"),
        (GRPO, "actor_rollout_ref.model.path=/no/model", "there is no such folder", "give the folder of a saved model"),
        (GRPO, "trainer.default_local_dir=null", "trainer.default_local_dir: it has no value", "on the command line"),
        (GRPO, "data.max_prompt_length=20", "data.max_prompt_length is 20", "raise data.max_prompt_length"),
        (GRPO, "data.train_batch_size=512", "only 256 training rows", "lower it to at most 256"),
        (GRPO, "reward.custom_reward_function.reward_kwargs.sigma=0", "must be positive", "RewardSettings"),
        (GRPO, "trainer.v1.sampler.sampler_kwargs.mode=keep", "keep", "FilterSettings"),
        (GRPO, "actor_rollout_ref.actor.policy_loss.gate_rho=1.5", "1.5", "GateSettings"),
        (GRPO, "algorithm.rollout_correction.bypass_mode=true", "entropies that the gate needs", "set it to False"),
        (GRPO, "actor_rollout_ref.rollout.load_format=dummy", "random image normalisation", "load_format=auto"),
        (GRPO, "trainer.v1.trainer_mode=colocate_async", "works with the sync trainer", "set it to omniq_sync"),
        (GRPO, "actor_rollout_ref.rollout.n=1", "a group of one has nothing to compare with", "rollout.n=8"),
        (GRPO, "actor_rollout_ref.actor.optim.lr=1", "a learning rate has to be a number from 0 to 0.1", "lower it"),
        (GRPO, "+data.train_batch_sise=12", "did you mean data.train_batch_size?", "correct its name"),
        (GRPO, "actor_rollout_ref.actor.use_torch_compile=false", "it has no effect", "fsdp_config.use_torch_compile"),
        (SFT, "optim.lr=1", "a learning rate has to be a number from 0 to 0.1", "lower it"),
        (SFT, "+data.max_len=12", "did you mean data.max_length?", "correct its name"),
        (SFT, "trainer.nnodes=2", "it has no effect", "remove it"),
        (SFT, "model.path=null", "model.path: it has no value", "model.path=VALUE"),
        (SFT, "data.train_files=no.parquet", "no.parquet: there is no such file", "give an existing file"),
        (SFT, "data.max_length=30", "data.max_length is 30", "raise data.max_length"),
        (
            SFT,
            "data.train_batch_size=512 data.val_files=FOLDER/sft.parquet",
            "only 256 rows",
            "lower it to at most 256",
        ),
    ],
)
def test_a_planted_mistake_is_found_with_its_fix(healthy, name, mistake, said, fix):
    result = doctor(name, *words(name, healthy), *mistake.replace("FOLDER", str(healthy)).split())
    assert result.exit_code == 1
    assert any(said in line and fix in line.split("Fix:")[-1] for line in result.output.splitlines()), result.output


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (sft_record(7, answer=" "), "its last turn is not the answer"),
        (
            sft_record(7, answer="<think>a</think><answer>1</answer><answer>2</answer>"),
            "could not be parsed by any reward (many_answers)",
        ),
        (sft_record(7, answer="<think>a</think><answer>1"), "could not be parsed by any reward (truncated)"),
        (sft_record(7, images=2), "1 times <image>, the row has 2 images"),
        (sft_record(7, answer="<think>a <video></think><answer>1</answer>"), "the conversation contains <video>"),
        (sft_record(7, answer="a<|image_pad|>"), "the conversation contains <|image_pad|>"),
        ({**sft_record(7), "messages": []}, "not a list of turns"),
        ({**sft_record(7), "images": [{"bytes": b"no image"}]}, "no known image format"),
    ],
)
def test_a_broken_sft_row_is_named(healthy, tmp_path, broken, said):
    path = written(tmp_path, [*(sft_record(number) for number in range(7)), broken], "sft.parquet")
    result = doctor(
        "quickstart/sft", *words("quickstart/sft", healthy), f"data.train_files={path}", "data.train_batch_size=4"
    )
    assert result.exit_code == 1
    assert "row 7 (id made/7): " in result.output and said in result.output.replace("\n", " ")


def test_sft_that_would_go_on_from_a_checkpoint_and_validates_on_what_it_learns_is_noted(healthy, tmp_path):
    path = written(tmp_path, [sft_record(number) for number in range(8)], "sft.parquet")
    checkpoint(tmp_path / "run", 1, below="")
    files = [f"data.{kind}_files={path}" for kind in ("train", "val")]
    more = ["data.train_batch_size=4", f"trainer.default_local_dir={tmp_path / 'run'}", *files]
    result = doctor("quickstart/sft", *words("quickstart/sft", healthy), *more)
    said = result.output.replace("\n", " ")
    assert result.exit_code == 0 and "8 rows of data.val_files also appear in data.train_files" in said
    assert "the run will resume after step 1, not from model.path" in said


def test_an_answer_without_tags_may_be_learned(healthy, tmp_path):
    path = written(tmp_path, [sft_record(number, "A soft image.") for number in range(8)], "sft.parquet")
    result = doctor(
        "quickstart/sft", *words("quickstart/sft", healthy), f"data.train_files={path}", "data.train_batch_size=4"
    )
    assert result.exit_code == 0, result.output
