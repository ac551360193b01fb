"""The report over a GRPO run: what is read, what is measured, what a hacked run looks like beside an honest one."""

import json

import numpy as np
import pytest
from findings_builders import answer_text
from rich.console import Console
from scipy import stats

from omniq_verl.findings.dumps import read_dump, repeated_share
from omniq_verl.findings.reward_hacking import find_reward_hacking, intervals, measures

RNG = np.random.default_rng(0)
TARGET = RNG.uniform(1, 5, 60).round(2)


def records(scores, texts=None, reward=None):
    for number, (score, target) in enumerate(zip(scores, TARGET, strict=False)):
        text = texts[number] if texts else answer_text(score)
        yield {
            **{"input": "q", "output": text, "gts": json.dumps({"score": target}), "task": "technical"},
            **{"score": 0.5 if reward is None else reward, "step": 0, "pred": score, "target": target},
            "uid": f"image-{number // 2}_{number % 2}_0",
        }


def write_run(folder, steps, rewards):
    """A run with metrics and these answers by step."""
    (folder / "metrics").mkdir(parents=True)
    (folder / "validation").mkdir()
    lines = [{"step": step, "data": {"critic/score/mean": reward}} for step, reward in rewards.items()]
    (folder / "metrics/001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, found in steps.items():
        path = folder / "validation" / f"{step}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return folder


def honest(noise):
    return np.clip(TARGET + RNG.normal(scale=noise, size=len(TARGET)), 1, 5).round(1)


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0), ("a b", 0), ("a b c", 0), ("a b c a b c", 1 / 4), ("a a a a a", 2 / 3), ("a b c d e f", 0)],
)
def test_repeated_phrases_by_hand(text, share):
    assert repeated_share(text) == pytest.approx(share)


def test_measures_by_hand(tmp_path):
    scores, texts = [3.0, 3.0, 3.3, None], ["<think>same</think><answer>3.0</answer>"] * 3 + ["no"]
    path = tmp_path / "1.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records(scores, texts)))
    answers = read_dump(path)
    found = measures(answers)
    target = TARGET[:3]
    assert found["parsed"] == 0.75 and found["same_text"] == 0.75 and found["words"] == 1
    assert found["same_score"] == pytest.approx(2 / 3)
    assert found["middle"] == 1.0
    assert found["middle_labels"] == pytest.approx(np.mean(np.abs(target - 3) <= 0.4))
    assert found["spread"] == pytest.approx(np.std([3, 3, 3.3]) / np.std(target))
    assert found["srcc"] == pytest.approx(stats.spearmanr([3, 3, 3.3], target)[0])


def test_intervals_are_those_of_a_plain_bootstrap_over_images(tmp_path):
    path = tmp_path / "1.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records(honest(1.0))))
    answers = read_dump(path)
    found = intervals(answers, 40, seed=3)
    counts = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=40)
    for draw, row in enumerate(counts):
        chosen = [2 * image + half for image, times in enumerate(row) for _ in range(times) for half in (0, 1)]
        mine = answers.iloc[chosen]
        assert found["srcc"][draw] == pytest.approx(stats.spearmanr(mine.score, mine.target)[0])
        assert found["words"][draw] == pytest.approx(mine.words.mean())
        near = (mine.score - 3).abs() <= 0.4 + 1e-9
        assert found["middle"][draw] == pytest.approx(near.mean())


def test_an_honest_run_and_a_hacked_one_are_told_apart(tmp_path):
    good = write_run(tmp_path / "good", {
        0: records(honest(2.0), reward=0.3), 10: records(honest(0.2), reward=0.9),
    }, {1: 0.3, 10: 0.9})  # fmt: skip
    find_reward_hacking(good, None, tmp_path / "out/good", 300, Console(quiet=True))
    said = json.loads((tmp_path / "out/good/reward_hacking.json").read_text())
    assert "earned by better scores" in said["found"][0] and "none" in said["found"][1]
    middle = [answer_text(3.0).replace("slight noise", "so good so good so good so good") for _ in TARGET]
    bad = write_run(tmp_path / "bad", {
        0: records(honest(0.3), reward=0.3), 10: records([3.0] * 60, middle, reward=0.9),
    }, {1: 0.3, 10: 0.9})  # fmt: skip
    find_reward_hacking(bad, None, tmp_path / "out/bad", 300, Console(quiet=True))
    told = json.loads((tmp_path / "out/bad/reward_hacking.json").read_text())
    assert "not shown that SRCC does" in told["found"][0]
    for sign in ("words", "repeated phrases", "scores at the middle"):
        assert sign in told["found"][1].split("(")[0]
    assert told["steps"][-1]["spread"]["value"] == 0 and told["steps"][-1]["srcc"]["value"] is None
    assert told["curves"]["reward"] == {"1": 0.3, "10": 0.9}
    assert (tmp_path / "out/bad/reward_hacking.png").stat().st_size > 5000


def test_a_torn_last_line_is_left_out_and_a_broken_one_named(tmp_path):
    path = tmp_path / "1.jsonl"
    whole = [json.dumps(one) for one in records([3.0, 4.0])]
    path.write_text("\n".join([*whole, whole[0][:30]]))
    assert len(read_dump(path)) == 2
    path.write_text("\n".join([whole[0], "[1]", whole[1], ""]))
    with pytest.raises(ValueError, match=r"1\.jsonl, line 2 is no answer .*Fix"):
        read_dump(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"has no answers\. Fix"):
        read_dump(path)


def test_values_of_other_types_and_unknown_tasks_are_no_numbers(tmp_path):
    path = tmp_path / "1.jsonl"
    one = {"output": "x \ud800", "score": "high", "pred": True, "target": float("nan"), "task": "os:system", "uid": 3}
    path.write_text(json.dumps(one) + "\n")
    [line] = read_dump(path).to_dict("records")
    assert all(np.isnan(line[name]) for name in ("reward", "score", "target", "low", "high"))
    path.write_text(json.dumps(one | {"pred": 10**400}) + "\n")  # no float holds it
    assert np.isnan(read_dump(path).score[0])


def test_a_run_without_answers_of_two_steps_names_the_settings(tmp_path):
    run = write_run(tmp_path / "run", {0: records(honest(1.0))}, {1: 0.3})
    with pytest.raises(ValueError, match=r"answers of 1 steps.*trainer\.validation_data_dir.*Fix|Fix.*--answers"):
        find_reward_hacking(run, None, tmp_path / "out", 100, Console(quiet=True))
    with pytest.raises(ValueError, match="no metrics"):
        find_reward_hacking(tmp_path, None, tmp_path / "out", 100, Console(quiet=True))
