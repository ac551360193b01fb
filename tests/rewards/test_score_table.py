"""The closeness to another model's scores, which a second judge gives."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from batch_reward_builders import rollouts_from

from omniq_verl.rewards.batch import BatchRewardSettings, batch_reward
from omniq_verl.rewards.batch.score_table import closeness

IMAGES = [([3.0, None, 5.0], 4.0), ([1.0], 2.0)]


@pytest.fixture
def rollouts():
    made = rollouts_from(IMAGES)
    return dataclasses.replace(made, images=np.array(["a", "a", "a", "007"], dtype=object))


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".jsonl", ".parquet"])
def test_it_is_the_distance_on_the_scale_and_nothing_for_an_answer_without_a_score(rollouts, tmp_path, suffix):
    path = tmp_path / f"other{suffix}"
    table = pd.DataFrame({"id": ["a", "007"], "score": [2.0, 1.0], "more": [0, 0]})
    write = {
        ".jsonl": lambda: table.to_json(path, orient="records", lines=True),
        ".parquet": lambda: table.to_parquet(path),
    }
    write.get(suffix, lambda: table.to_csv(path, index=False))()
    found = batch_reward(rollouts, BatchRewardSettings(f"{closeness.__module__}:closeness", {"path": str(path)}))
    assert found.tolist() == [0.75, 0.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.csv", None, "there is no such file"),
        ("other.txt", "id,score\n", "no table that can be read"),
        ("other.csv", "id,points\na,1\n", "it has no column score"),
        ("other.csv", "id,score\na,good\n", "the score of 'a' is 'good'"),
        ("other.csv", 'id,score\na,"3,5"\n', "the score of 'a' is '3,5'"),
        ("other.csv", "id,score\na,1\na,2\n007,1\n", "the id a is there twice"),
        ("other.csv", "id,score\na,\n007,1\n", "the score of 'a' is ''"),
        ("other.csv", "id,score\na,inf\n007,1\n", "the score of 'a' is 'inf'"),
        ("other.csv", "id,score\n,2\na,1\n007,1\n", "an id is ''"),
        ("other.csv", "id;score\na;1\n", "separated by semicolons"),
        ("other.csv", "id,score\na,1,5\n007,1,5\n", "line 2 has 3 cells, the header 2"),
        ("other.jsonl", '{"id": "a"}\n', "line 1 has no score"),
        ("other.parquet", "id,score\n", "cannot be read as parquet"),
        ("other.csv", "id,score\na,1\n", "no score for 007"),
    ],
)
def test_a_table_that_does_not_fit_is_named_with_a_fix(rollouts, tmp_path, name, text, said):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=said) as found:
        closeness(rollouts, str(path))
    assert str(path) in str(found.value) and "Fix: " in str(found.value)


def test_a_task_without_a_scale_has_nothing_to_be_close_to(rollouts, tmp_path):
    (tmp_path / "t.csv").write_text("id,score\na,1\n007,1\n")
    none = np.full(4, math.nan)
    found = closeness(dataclasses.replace(rollouts, low=none, high=none), str(tmp_path / "t.csv"))
    assert found.tolist() == [0.0] * 4


def test_an_id_may_be_called_like_a_missing_value(rollouts, tmp_path):
    (tmp_path / "t.csv").write_text("id,score\nNA,2\nnull,1\n")
    named = dataclasses.replace(rollouts, images=np.array(["NA", "NA", "NA", "null"], dtype=object))
    assert closeness(named, str(tmp_path / "t.csv")).tolist() == [0.75, 0.0, 0.25, 1.0]
