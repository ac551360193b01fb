"""Answers without reasoning: formulas against plain references, and verl's own loss on their weights."""

import json
import math

import numpy as np
import pytest
import torch
from doctor_builders import tiny_model
from generation_builders import png, write_rows
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import sft_loss

from data_prep import answers
from omniq_verl import console
from omniq_verl.baselines.answers import KINDS, answers_of, deviation_of, records_of
from omniq_verl.data.parquet import write_parquet
from omniq_verl.data.rows import Row
from omniq_verl.evaluation.of_family import family_question
from omniq_verl.families.find import FAMILIES
from omniq_verl.families.levels import level_texts
from omniq_verl.tasks import LEVELS
from omniq_verl.tasks.expected_level import soft_levels
from omniq_verl.tasks.task import Scale


def info(score: float = 3.25, task: str = "technical", raw: tuple[float, float] = (1.0, 5.0), **details) -> dict:
    row = Row("made", "made/0", task, "train", score, raw[0], raw, text="a car", details=details)
    return row.record(0, png())["extra_info"]


def test_the_three_kinds_by_hand():
    assert answers_of(info(), "score") == [("<answer>3.25</answer>", 1.0)]
    assert answers_of(info(), "level") == [("The quality of the image is fair.", 1.0)]
    assert answers_of(info(4.2, "aesthetic"), "level") == [("The aesthetics of the image is excellent.", 1.0)]
    # No spread is known: 3.25 is three quarters 3 and a quarter 4.
    assert answers_of(info(), "soft") == [
        ("The quality of the image is fair.", 0.75),
        ("The quality of the image is good.", 0.25),
    ]


def test_the_spread_of_ratings_by_hand():
    # AVA: two votes of 4 and two of 6 on 1 to 10: a deviation of 1, and 4/9 on 1 to 5.
    assert deviation_of(info(raw=(1, 10), votes=[0, 0, 0, 2, 0, 2, 0, 0, 0, 0])) == pytest.approx(4 / 9)
    assert deviation_of(info(ratings=[2.0, 4.0, 3.0])) == pytest.approx(math.sqrt(2 / 3))
    # KonIQ's raw MOS has bounds of 1.096 and 4.31, as in DeQA: std_norm = 4 std / (max - min).
    assert deviation_of(info(raw=(1.1, 4.3), standard_deviation=0.6)) == pytest.approx(4 * 0.6 / 3.2)
    for nothing in ({}, {"ratings": [3.0]}, {"votes": []}, {"votes": [0, 0]}, {"standard_deviation": None}):
        assert deviation_of(info(**nothing)) is None


def test_a_soft_label_has_a_record_for_each_share_that_counts():
    found = answers_of(info(3.6, ratings=[3.0, 4.0, 4.0, 3.0, 4.0]), "soft")
    shares = soft_levels(3.6, float(np.std([3, 4, 4, 3, 4])), Scale(1, 5))
    kept = np.where(shares < 0.01, 0, shares)
    assert [weight for _, weight in found] == pytest.approx([share for share in kept / kept.sum() if share])
    assert sum(weight for _, weight in found) == pytest.approx(1)


def test_the_question_of_a_level_leaves_out_how_to_answer():
    row = Row("made", "made/0", "code_technical", "train", 3.0, 3.0, (0.0, 5.0)).record(0, png())
    (scored,), (leveled,) = (list(records_of(row, kind)) for kind in ("score", "level"))
    assert scored["messages"][:-1] == row["prompt"] and scored["images"] == row["images"]
    (question, _) = leveled["messages"]
    assert question["role"] == "user" and "<think>" not in question["content"] and "<answer>" not in question["content"]
    assert row["prompt"][1]["content"].startswith(question["content"])


@pytest.mark.parametrize("task", ["technical", "aesthetic", "alignment"])
def test_a_level_scorer_is_asked_what_it_learned(task):
    """For rows of every wording: the question of training, and the five sentences that it may learn."""
    family, words = FAMILIES["levels"], dict(level_texts(FAMILIES["levels"].task(task)).values)
    start, asked = level_texts(family.task(task)).start, set()
    for number in range(12):
        row = Row("made", f"made/{number}", task, "train", 3.25, 3.25, (1.0, 5.0), text="a car").record(number, png())
        question = family_question(row, "", "levels")
        asked.add(question[-1]["content"])
        for record in [one for kind in ("level", "soft") for one in records_of(row, kind)]:
            assert record["messages"][:-1] == question
            answer = record["messages"][-1]["content"]
            assert answer.startswith(start) and answer.removeprefix(start).removesuffix(".") in words
    assert len(asked) == 3 and list(words.values()) == [1, 2, 3, 4, 5]


def loss_of(logits: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """verl's SFT loss of one record for each level word, its mask holding the weight."""
    log_probs = torch.log_softmax(logits, -1)
    nested = torch.nested.as_nested_tensor
    # Two positions: a prompt token that predicts the word, and the word, which predicts nothing that is learned.
    rows = nested([torch.stack([log_probs[level], log_probs[0]]) for level in range(5)], layout=torch.jagged)
    masks = nested([torch.tensor([0.0, weight]) for weight in weights], layout=torch.jagged)
    data = TensorDict({"loss_mask": masks}, batch_size=[5])
    tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=torch.tensor(sum(weights)))
    return sft_loss(None, {"log_probs": rows}, data)[0]


def test_verls_loss_on_the_weights_is_the_kl_divergence_and_a_constant():
    shares = soft_levels(3.6, 0.7, Scale(1, 5)).tolist()
    logits = torch.tensor([0.3, -1.0, 0.5, 1.2, 0.1, 2.0, -0.7], requires_grad=True)  # five words, and two others
    loss = loss_of(logits, shares)
    (gradient,) = torch.autograd.grad(loss, logits)
    plain = logits.detach().clone().requires_grad_()
    soft = torch.tensor([*shares, 0.0, 0.0], dtype=torch.float32)
    divergence = torch.nn.functional.kl_div(torch.log_softmax(plain, -1), soft, reduction="sum")
    entropy = -sum(share * math.log(share) for share in shares if share)
    assert loss.item() == pytest.approx(divergence.item() + entropy, abs=1e-5)
    (expected,) = torch.autograd.grad(divergence, plain)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_writes_what_verl_reads(tmp_path, capsys, kind):
    import pandas as pd

    write_rows(tmp_path / "train-00000-of-00001.parquet", np.linspace(1, 5, 9))
    answers.main(["--data", str(tmp_path / "train*.parquet"), "--kind", kind, "--out", str(tmp_path / "sft.parquet")])
    assert f"data.train_files=[{tmp_path / 'sft.parquet'}]" in capsys.readouterr().out
    rows = pd.read_parquet(tmp_path / "sft.parquet").to_dict("records")
    weights: dict[str, float] = {}
    for row in rows:
        weights[row["extra_info"]["id"]] = weights.get(row["extra_info"]["id"], 0) + row["extra_info"]["weight"]
    assert len(weights) == 9 and all(total == pytest.approx(1) for total in weights.values())
    assert rows[0]["messages"][-1]["role"] == "assistant" and rows[0]["images"][0]["bytes"]
    if kind == "level":
        assert {row["messages"][-1]["content"].split()[-1] for row in rows} == {f"{level}." for level in LEVELS}


def test_a_log_shows_how_far_the_script_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(console, "REPORT_EVERY", 0.0)
    write_rows(tmp_path / "train.parquet", np.linspace(1, 5, 9))
    answers.main(["--data", str(tmp_path / "train.parquet"), "--kind", "score", "--out", str(tmp_path / "sft.parquet")])
    assert "answers: 9 of 9 rows" in capsys.readouterr().err


def test_held_out_rows_are_rejected(tmp_path):
    write_rows(tmp_path / "test.parquet", [2.0], "test")
    with pytest.raises(SystemExit, match="holds rows of the split 'test'"):
        answers.main(
            ["--data", str(tmp_path / "test.parquet"), "--kind", "level", "--out", str(tmp_path / "x.parquet")]
        )
    assert not (tmp_path / "x.parquet").exists()


def test_a_row_with_broken_details_has_no_spread():
    assert deviation_of({**info(), "details": "{"}) is None
    assert json.loads(info(votes=[1])["details"]) == {"votes": [1]}


def test_the_datasets_mask_holds_the_weight(tmp_path):
    from omegaconf import OmegaConf
    from transformers import AutoProcessor

    from omniq_verl.trainer.weighted_sft_verl import WeightedSFTDataset

    processor = AutoProcessor.from_pretrained(tiny_model(tmp_path / "model"))
    rows = [Row("made", f"made/{n}", "technical", "train", 3.25, 3.25, (1.0, 5.0)).record(n, png(n)) for n in range(2)]
    write_parquet((one for row in rows for one in records_of(row, "soft")), tmp_path / "sft.parquet")
    config = OmegaConf.create({"max_length": 512, "truncation": "error", "pad_mode": "no_padding"})
    data = WeightedSFTDataset(str(tmp_path / "sft.parquet"), processor.tokenizer, config, processor)
    masks = [data[n]["loss_mask"] for n in range(4)]
    assert [sorted(set(mask.tolist())) for mask in masks] == [[0.0, 0.75], [0.0, 0.25]] * 2
