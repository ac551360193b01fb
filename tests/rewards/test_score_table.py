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


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_it_is_the_distance_on_the_scale_and_nothing_for_an_answer_without_a_score(rollouts, tmp_path, suffix):
    path = tmp_path / f"other{suffix}"
    table = pd.DataFrame({"id": ["a", "007"], "score": [2.0, 1.0], "more": [0, 0]})
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    found = batch_reward(rollouts, BatchRewardSettings(f"{closeness.__module__}:closeness", {"path": str(path)}))
    assert found.tolist() == [0.75, 0.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.csv", None, "no columns id and score"),
        ("other.txt", "id,score\n", "type of table is not supported"),
        ("other.csv", "id,points\na,1\n", "no columns id and score"),
        ("other.csv", "id,score\na,good\n", "no columns id and score"),
        ("other.csv", "id,score\na,1\na,2\n007,1\n", "an id occurs twice"),
        ("other.csv", "id,score\na,\n007,1\n", "a score is not finite"),
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
