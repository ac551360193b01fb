"""Several images in any container with an order, prompts and scales in the forms that callers have them."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_builders import RATER, RECORDER, Recorder, grey
from image_builders import decoded, noise, saved, smooth
from PIL import Image

from omniq_verl import Scorer
from omniq_verl.scoring.comparison import Comparer


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture
def scorer() -> Scorer:
    return Scorer("", RATER, batch=4)


def test_several_images_may_come_in_any_container_with_an_order(scorer, tmp_path):
    paths = []
    for value in (0, 255):
        paths.append(tmp_path / f"{value}.png")
        paths[-1].write_bytes(grey(value))
    batch = np.stack([np.full((16, 20, 3), value, np.uint8) for value in (0, 255)])
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2)
    names = list(map(str, paths))
    several = [paths, tuple(paths), (path for path in paths), pd.Series(names), pd.DataFrame({"image": names})["image"]]
    several += [
        np.array(names),
        pd.Index(names),
        dict.fromkeys(names).keys(),
        batch,
        tensor,
        tensor / 255,
        list(tensor),
    ]
    several += [[one[None] for one in tensor], map(Image.open, paths), np.array(paths, object)]
    for images in several:
        assert [one.score for one in scorer.score(images)] == [1.0, 5.0], type(images)
    assert scorer.score(tensor[1]).score == scorer.score(bytearray(grey(255))).score == 5.0


@pytest.mark.parametrize(
    "images",
    [
        pd.DataFrame({"image": ["a.png"], "score": [1]}),
        {"image": "a.png"},
        {"a.png", "b.png"},
        io.BytesIO(grey(0)),
        None,
        3,
        3.5,
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_images_is_an_error_and_no_rows_of_other_names(scorer, images):
    with pytest.raises(TypeError, match=r"expected one image or a list of images, got .*Fix"):
        scorer.score(images)


def test_items_that_are_no_images_have_rows_of_their_own(scorer):
    items = [None, 3, ["a.png"], {"bytes": b""}, np.zeros((2, 16, 16, 3), np.uint8), np.zeros((5, 5)), "//[", "data:,x"]
    found = scorer.score([*items, grey(255)])
    assert [one.status for one in found] == ["bad_image"] * len(items) + ["ok"]
    assert "2 pictures" in found[4].error and "5 x 5 pixels" in found[5].error and found[7].image == "image 7"


def test_pairs_may_come_in_any_container_and_are_two_images_each(tmp_path):
    comparer = Comparer("", "evaluation_builders:Chooser")
    batch = np.stack([np.full((16, 20, 3), value, np.uint8) for value in (0, 255)])
    for pairs in ([(grey(0), grey(255))], ((grey(0), grey(255)) for _ in range(1)), [batch], [[*batch]]):
        assert [one.winner for one in comparer.compare(pairs)] == ["B"]
    assert [one.winner for one in comparer.compare([(grey(0), grey(255))], np.zeros((1, 16, 20, 3), np.uint8))] == ["B"]
    for wrong in (
        [("a.png", "b.png", "c.png")],
        ["ab"],
        [grey(0)],
        [None],
        {"a": "b"},
        pd.DataFrame({"a": [1], "b": [2]}),
    ):
        with pytest.raises(TypeError, match="expected"):
            comparer.compare(wrong)


@pytest.mark.parametrize("wrong", [[{"role": "user", "content": "a cat"}], float("nan"), 3, b"a cat"])
def test_a_prompt_that_is_no_text_is_never_made_one(scorer, wrong):
    with pytest.raises(ValueError, match=r"prompts\[1\] is .*, not a string\. Fix:"):
        scorer.score([grey(0), grey(255)], task="alignment", prompt=["a cat", wrong])


def test_a_scale_may_be_given_by_its_name(scorer):
    assert Scorer("0-5", RATER).score(grey(0), scale="0-5").score == 0.0
    with pytest.raises(ValueError, match="unknown scale '0-7'"):
        scorer.score(grey(0), scale="0-7")


def test_sampled_answers_have_one_seed_by_every_way_in(tmp_path):
    data = saved(smooth(), "JPEG", quality=90)
    forms = [
        data,
        opened(data),
        np.asarray(opened(data)),
        saved(Image.fromarray(decoded(data)), "PNG"),
        saved(noise(), "PNG"),
    ]
    scorer = Scorer("", RECORDER)
    Recorder.seeds.clear()
    scorer.score(forms, samples=4)
    assert len(set(Recorder.seeds[:4])) == 1 and len(set(Recorder.seeds)) == 2
