"""Data sets for VLMEvalKit: the table and its evaluation, and with the kit itself where it is installed."""

import io
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from evaluation_builders import write_distorted, write_scored
from PIL import Image

from omniq_verl.adapters.vlmevalkit_dataset import COLUMNS, evaluate_table, register, write_table

VALUES, LABELS = (20, 90, 150, 220), (1.2, 2.5, 3.0, 4.9)
ANSWERS = ("<think>a</think><answer>1.5</answer>", "no idea", "<answer>2.5</answer>", "<answer>4.75</answer>")


@pytest.fixture
def prepared(tmp_path):
    return write_scored(tmp_path / "test.parquet", VALUES, LABELS)


@pytest.fixture
def answered(prepared, tmp_path):
    table = pd.read_csv(write_table(prepared, "KonIQ_omniq", tmp_path / "LMUData"), sep="\t")
    return table.assign(prediction=list(ANSWERS))


def test_the_table_has_the_kits_columns_and_the_images_keep_their_pixels(prepared, tmp_path):
    table = pd.read_csv(write_table(prepared, "KonIQ_omniq", tmp_path / "LMUData"), sep="\t")
    assert tuple(table.columns) == COLUMNS and table["index"].tolist() == [0, 1, 2, 3]
    assert table.answer.tolist() == pytest.approx(LABELS)
    for path, row in zip(table.image_path, pq.read_table(prepared).to_pylist(), strict=True):
        stored = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(stored))
        assert row["prompt"][-1]["content"] in {"<image>" + question for question in table.question}
    assert not list((tmp_path / "LMUData").rglob("*.tmp"))


def test_the_coefficients_are_those_of_the_parsed_answers(answered):
    found = evaluate_table(answered)
    labels, scores = np.array([1.2, 3.0, 4.9]), np.array([1.5, 2.5, 4.75])
    x, y = labels - labels.mean(), scores - scores.mean()
    assert found["plcc"] == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)), abs=1e-12)
    assert (found["srcc"], found["parsed"]) == (pytest.approx(1.0), 0.75)
    assert math.isnan(evaluate_table(answered[:2])["plcc"])


def test_an_empty_prediction_is_an_answer_that_cannot_be_parsed(answered):
    answered.loc[0, "prediction"] = float("nan")
    assert evaluate_table(answered)["parsed"] == 0.5


def test_wrong_inputs_are_rejected(prepared, answered, tmp_path):
    with pytest.raises(ValueError, match=r"has no columns \['prediction'\]\. Fix"):
        evaluate_table(answered.drop(columns="prediction"))
    with pytest.raises(ValueError, match=r"the name '\.\./x' cannot be used\. Fix"):
        write_table(prepared, "../x", tmp_path)
    with pytest.raises(ValueError, match=r"gives no single score of one image\. Fix"):
        write_table(write_distorted(tmp_path / "worn.parquet", VALUES), "worn", tmp_path)


@pytest.mark.parametrize("label", [float("nan"), None, "good", float("inf"), True])
def test_a_row_without_a_label_is_named(answered, label):
    broken = answered.astype({"answer": object})
    broken.loc[1, "answer"] = label
    with pytest.raises(ValueError, match=r"answer of line 1 is .*, not a number\. Fix"):
        evaluate_table(broken)


def test_a_column_that_is_there_twice_is_named(answered):
    with pytest.raises(ValueError, match=r"has 2 columns 'answer'\. Fix"):
        evaluate_table(pd.concat([answered, answered[["answer"]]], axis=1))


@pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is not installed")
def test_the_kit_builds_asks_and_measures_the_data_set(answered, tmp_path, monkeypatch):
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    from vlmeval import dataset as kit

    register(["KonIQ_omniq"])
    try:
        built = kit.build_dataset("KonIQ_omniq")
        image, text = built.build_prompt(1)
        assert (image["type"], text["value"]) == ("image", answered.question[1])
        assert Path(image["value"]).suffix == ".png"
        answered.to_excel(tmp_path / "predictions.xlsx", index=False)
        assert built.evaluate(str(tmp_path / "predictions.xlsx")) == evaluate_table(answered)
        with pytest.raises(ValueError, match=r"has a data set 'KonIQ_omniq' already\. Fix"):
            register(["KonIQ_omniq"])
    finally:
        kit.DATASET_CLASSES.pop()


@pytest.mark.parametrize("info", [float("nan"), "[1]", "[" * 100_000, "{"])
def test_a_table_that_was_not_ours_is_named(answered, info):
    with pytest.raises(ValueError, match=r"extra_info of line 0 is .* Fix: evaluate the file"):
        evaluate_table(answered.assign(extra_info=info))
