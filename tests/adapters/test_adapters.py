"""Adapters, over a scorer whose score is the brightness of an image, and against the packages that are installed."""

import copy
import io
import math
from importlib.util import find_spec

import pandas as pd
import pytest
import torch
from adapter_builders import Brightness
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from generation_builders import png
from PIL import Image

from omniq_verl.adapters import comfyui
from omniq_verl.adapters.scale import NoScore
from omniq_verl.adapters.tables import COLUMNS, batch_scorer, score_table
from omniq_verl.adapters.tensor_metric import TensorMetric
from omniq_verl.serving.client import Client


def grey(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 16, 16).clone()


def test_a_batch_of_tensors_is_scored_at_once_and_in_order():
    scorer = Brightness()
    found = TensorMetric(scorer)(grey(0.2, 1.0, 0.6))
    assert found.dtype == torch.float32 and found.shape == (3,) and len(scorer.calls) == 1
    assert found.tolist() == pytest.approx([1.8, 5.0, 3.4], abs=0.01)
    assert TensorMetric(scorer)(grey(0.6)[0]).tolist() == pytest.approx([3.4], abs=0.01)


def test_a_path_is_scored_and_attributes_are_those_of_pyiqa(tmp_path):
    Image.new("RGB", (16, 16), (255, 255, 255)).save(tmp_path / "white.png")
    metric = TensorMetric(Brightness())
    assert metric(str(tmp_path / "white.png")).tolist() == [5.0]
    assert (metric.lower_better, metric.metric_mode) == (False, "NR")


def test_a_picture_and_a_files_bytes_are_scored_as_pyiqa_scores_them():
    metric = TensorMetric(Brightness())
    assert metric(Image.new("RGB", (16, 16), (255, 255, 255))).tolist() == [5.0]
    assert metric(png(3)).shape == (1,)


def test_a_metric_is_cloned_with_the_scorer_that_it_has():
    metric = TensorMetric(Client("http://127.0.0.1:9"))  # a client has threads and locks, as engines do
    assert copy.deepcopy({"clip": metric})["clip"]._scorer is metric._scorer


def test_an_unreadable_answer_is_nan_or_an_error():
    assert TensorMetric(Brightness())(grey(0.0, 1.0)).isnan().tolist() == [True, False]
    with pytest.raises(NoScore, match=r"image 0 has no score: no_answer. Fix"):
        TensorMetric(Brightness(), unread=None)(grey(0.0))


@pytest.mark.parametrize("images", [grey(1.0) * 2, torch.zeros(5), grey(float("nan")), [1, 2], grey(1.0).numpy()])
def test_what_is_no_batch_of_images_is_rejected(images):
    with pytest.raises(ValueError, match=r"\w"):
        TensorMetric(Brightness())(images)


def test_a_reference_is_rejected():
    with pytest.raises(ValueError, match="needs no reference"):
        TensorMetric(Brightness())(grey(1.0), grey(1.0))


@pytest.mark.skipif(find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
def test_torchmetrics_gives_the_mean_over_batches_and_can_be_reset_and_merged():
    from torchmetrics import MetricCollection

    from omniq_verl.adapters.torchmetrics_metric import MeanScore

    metric = MeanScore(Brightness())
    metric.update(grey(0.2, 1.0))
    metric.update(grey(0.6, 0.0))
    assert float(metric.compute()) == pytest.approx((1.8 + 5.0 + 3.4) / 3, abs=0.01)
    assert int(metric.unread) == 1
    one, other = MeanScore(Brightness()), MeanScore(Brightness())
    one.update(grey(0.2, 1.0))
    other.update(grey(0.6))
    one.merge_state(other)
    assert float(one.compute()) == pytest.approx((1.8 + 5.0 + 3.4) / 3, abs=0.01)
    metric.reset()
    assert int(metric.images) == 0
    assert float(MetricCollection({"omniq": metric})(grey(1.0))["omniq"]) == 5.0


@pytest.mark.skipif(find_spec("pyiqa") is None, reason="pyiqa is not installed")
def test_pyiqa_creates_and_calls_it_by_name():
    import pyiqa

    from omniq_verl.adapters.pyiqa_metric import register

    register()
    register()
    metric = pyiqa.create_metric("omniq", scorer=Brightness(), device="cpu")
    assert metric(grey(0.2, 1.0)).tolist() == pytest.approx([1.8, 5.0], abs=0.01)
    assert "omniq" in pyiqa.list_models("NR") and metric.lower_better is False
    with pytest.raises(ValueError, match=r"has a metric 'lpips' already. Fix"):
        register("lpips")
    with pytest.raises(ValueError, match=r"needs a model. Fix"):
        pyiqa.create_metric("omniq")


def test_a_table_gets_columns_and_stays_as_it_was():
    table = pd.DataFrame({"image": [png(1), b"none", png(2)], "text": ["a", "b", "c"]}, index=[7, 8, 9])
    scorer = Brightness()
    found = score_table(table, scorer, task="alignment", prompt="text", prefix="q_")
    assert scorer.calls == [(3, "alignment", ["a", "b", "c"])]
    assert list(found.columns) == ["image", "text", *(f"q_{name}" for name in COLUMNS)] and list(table.columns) == [
        "image",
        "text",
    ]
    assert found.index.tolist() == [7, 8, 9] and found.q_status.tolist() == ["ok", "bad_image", "ok"]
    assert found.q_score.isna().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"no column 'photo'. Fix"):
        score_table(table, scorer, image="photo")
    with pytest.raises(ValueError, match=r"a column 'q_score' already. Fix"):
        score_table(found, scorer, prefix="q_")


@pytest.mark.parametrize("decode", [True, False])
def test_a_dataset_is_mapped_with_images_decoded_or_not(tmp_path, decode):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    data = Dataset.from_dict({"image": files}, features=Features({"image": ImageFeature(decode=decode)}))
    found = data.map(batch_scorer(Brightness()), batched=True, batch_size=2)
    expected = [one.score for one in Brightness().score(files)]
    assert found["score"][:] == pytest.approx(expected) and found["status"][:] == ["ok"] * 3


def black_or_white(*values: int) -> list[dict]:
    """Images as Hugging Face's parquet files hold them; the black ones have no readable answer."""
    found = []
    for value in values:
        buffer = io.BytesIO()
        Image.new("L", (16, 16), value).save(buffer, "PNG")
        found.append({"bytes": buffer.getvalue(), "path": None})
    return found


def test_a_first_batch_without_scores_does_not_stop_the_map():
    data = Dataset.from_dict({"image": black_or_white(0, 0, 255)}, features=Features({"image": ImageFeature()}))
    found = data.map(batch_scorer(Brightness()), batched=True, batch_size=2)
    assert [math.isnan(score) for score in found["score"]] == [True, True, False]
    assert (found["level"][:], found["status"][:]) == (["", "", "fair"], ["no_answer", "no_answer", "ok"])


def test_a_pandas_table_of_a_hugging_face_file_is_scored(tmp_path):
    pd.DataFrame({"image": black_or_white(255, 0)}).to_parquet(tmp_path / "t.parquet")
    found = score_table(pd.read_parquet(tmp_path / "t.parquet"), Brightness())
    assert found.score[0] == 5.0 and math.isnan(found.score[1])
    assert found[["score", "std", "outside"]].dtypes.eq("float64").all()


def test_an_object_that_holds_no_image_is_one_bad_image():
    found = batch_scorer(Brightness())({"image": [{"url": "http://x/a.png"}, {"bytes": None, "path": None}, None]})
    assert found["status"] == ["bad_image"] * 3


def test_the_comfyui_node_keeps_its_contract(monkeypatch):
    node = comfyui.NODE_CLASS_MAPPINGS["OmniqScore"]
    inputs = node.INPUT_TYPES()
    assert set(inputs) == {"required", "optional"} and inputs["required"]["images"] == ("IMAGE",)
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_IS_LIST) == 3
    assert node.__name__ in comfyui.NODE_DISPLAY_NAME_MAPPINGS
    asked = []
    monkeypatch.setattr(comfyui, "_scorer", lambda *words: asked.append(words) or Brightness())
    images = grey(0.2, 1.0, 0.0).movedim(1, -1)
    scores, texts, best = getattr(node(), node.FUNCTION)(images=images, model="m", task="technical")
    assert scores[:2] == pytest.approx([1.8, 5.0], abs=0.01) and math.isnan(scores[2]) and texts[2] == "dark"
    assert torch.equal(best, images[1:2]) and asked == [("m", "auto", "auto", "hf")]
    with pytest.raises(ValueError, match="no image has a score: no_answer"):
        node().score(grey(0.0).movedim(1, -1), "m", "technical")


def test_comfyui_closes_a_model_before_it_opens_another(monkeypatch):
    events = []

    class Named:
        def __init__(self, model: str):
            self.model = model

        def close(self) -> None:
            events.append(f"close {self.model}")

    def opened(model: str, **_: object) -> Named:
        events.append(f"open {model}")
        return Named(model)

    monkeypatch.setattr("omniq_verl.scoring.scorer.Scorer.from_pretrained", opened)
    monkeypatch.setattr(comfyui, "_open", {})
    for model in ("a", "a", "b"):
        assert comfyui._scorer(model, "auto", "auto", "vllm").model == model
    assert events == ["open a", "close a", "open b"]


def test_comfyui_clips_what_resizing_leaves_outside_of_the_range(monkeypatch):
    monkeypatch.setattr(comfyui, "_scorer", lambda *_: Brightness())
    images = torch.stack([torch.full((16, 16, 3), 1.04), torch.full((16, 16, 3), 0.5)])
    scores, _, best = comfyui.OmniqScore().score(images, "model", "technical")
    assert scores == pytest.approx([5.0, 3.0], abs=0.02) and torch.equal(best, images[:1])
    with pytest.raises(ValueError, match=r"NaN or infinite\. Fix: [^:]*$"):
        comfyui.OmniqScore().score(torch.full((1, 16, 16, 3), float("nan")), "model", "technical")


def test_a_dataset_that_is_mapped_row_by_row_is_told_how(tmp_path):
    picture = Image.new("RGB", (16, 16))
    for row in ({"image": picture}, {"image": {"bytes": png(0), "path": None}}, {"image": "a.png"}, {"image": None}):
        with pytest.raises(ValueError, match="call map with batched=True"):
            batch_scorer(Brightness())(row)


def test_columns_that_are_there_twice_or_already_are_named():
    image = Image.new("RGB", (16, 16))
    twice = pd.DataFrame([[image, image], [image, image]], columns=["image", "image"])
    with pytest.raises(ValueError, match=r"the table has 2 columns 'image'. Fix"):
        score_table(twice, Brightness())
    add = batch_scorer(Brightness())
    with pytest.raises(ValueError, match=r"has a column 'score' already. Fix: give another prefix"):
        add({"image": [image], "score": [0.3]})  # Dataset.map would replace the labels
    assert set(batch_scorer(Brightness(), prefix="new_")({"image": [image], "score": [0.3]})) == {
        f"new_{name}" for name in COLUMNS
    }


def test_an_empty_batch_in_comfyui_is_named(monkeypatch):
    monkeypatch.setattr(comfyui, "_scorer", lambda *_: Brightness())
    with pytest.raises(ValueError, match="no image has a score: the batch is empty"):
        comfyui.OmniqScore().score(torch.zeros(0, 16, 16, 3), "model", "technical")
