"""The best image of a pipeline call: with the tiny SANA, and over made images."""

import numpy as np
import pytest
from adapter_builders import Brightness
from PIL import Image

from omniq_verl.adapters.diffusers_images import pick_best
from omniq_verl.data.images import BadImage

TEXTS = ["a red fox in the snow", "two blue cats on a bench"]


def flat(value: int) -> Image.Image:
    return Image.new("RGB", (16, 16), (value,) * 3)


def test_each_text_gets_the_best_of_its_own_images():
    scorer = Brightness()
    images = [flat(value) for value in (200, 90, 0, 30, 40, 40)]
    first, second = pick_best(images, TEXTS, scorer)
    assert (first.best, second.best) == (0, 1) and second.image is images[4]
    assert scorer.calls == [(6, "alignment", [TEXTS[0]] * 3 + [TEXTS[1]] * 3)]
    assert [one.score for one in second.scores] == pytest.approx([1 + 4 * v / 255 for v in (30, 40, 40)])


def test_a_pipeline_that_returns_a_tuple_gives_the_same():
    images = [flat(value) for value in (9, 90)]
    for output in ((images,), (images, [False, False]), (np.stack(images) / np.float32(255), None)):
        (picked,) = pick_best(output, TEXTS[:1], Brightness())
        assert picked.best == 1 and len(picked.scores) == 2


def test_a_text_without_a_score_has_no_best_image():
    first, second = pick_best([flat(0), flat(9)], TEXTS, Brightness())
    assert (first.best, first.image, second.best) == (None, None, 0)


@pytest.mark.parametrize(("images", "texts"), [([flat(1)] * 3, TEXTS), ([], TEXTS), ([flat(1)], [])])
def test_images_that_do_not_fit_the_texts_are_rejected(images, texts):
    with pytest.raises(ValueError, match=r"cannot belong to \d texts\. Fix"):
        pick_best(images, texts, Brightness())


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_a_call_of_a_real_pipeline_in_every_output_type(kind):
    pytest.importorskip("diffusers")
    import torch

    from omniq_verl.tiny.sana import build_pipeline

    pipeline = build_pipeline(TEXTS)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
    size = {"height": 64, "width": 64, "num_inference_steps": 2, "use_resolution_binning": False}
    output = pipeline(TEXTS, num_images_per_prompt=2, generator=seeds, output_type=kind, **size)
    found = pick_best(output, TEXTS, Brightness(), task="technical")
    pixels = np.stack([np.asarray(image, dtype=float) for image in output.images])
    pixels = pixels / 255 if kind == "pil" else pixels.transpose(0, 2, 3, 1) if kind == "pt" else pixels
    luma = (pixels @ [0.299, 0.587, 0.114]).mean((1, 2))  # ITU-R BT.601, as PIL's conversion to grey
    assert [score.score for one in found for score in one.scores] == pytest.approx(1 + 4 * luma, abs=0.02)
    assert [one.best for one in found] == [int(np.argmax(luma[:2])), int(np.argmax(luma[2:]))]
    assert np.array_equal(np.asarray(found[1].image), np.asarray(output.images[2 + found[1].best]))


def test_latents_are_no_images():
    import torch

    with pytest.raises(BadImage):
        pick_best(torch.zeros(2, 8, 4, 4), TEXTS, Brightness())
