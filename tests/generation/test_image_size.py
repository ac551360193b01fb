"""One rule for the size of images: worked by hand for SPAQ's photographs, and the same wherever an image is shown."""

import io
import json

import numpy as np
import pytest
from data_builders import card_of, rows_of
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from omniq_verl.cli import app
from omniq_verl.data.image_size import UNBOUNDED, ImageSize, image_tokens
from omniq_verl.data.images import BadImage
from omniq_verl.generation.chat_inputs import decode_images
from omniq_verl.generation.spec import EngineSpec

SPAQ = (4032, 3024)


def photo(width: int, height: int, kind: str = "JPEG") -> bytes:
    slope = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2)
    buffer = io.BytesIO()
    Image.fromarray(slope).save(buffer, kind)
    return buffer.getvalue()


def test_tokens_of_spaqs_photographs_by_hand():
    # 4032 / 28 = 144 and 3024 / 28 = 108; 3264 / 28 = 116.57 and 2448 / 28 = 87.43.
    assert image_tokens(*SPAQ) == 144 * 108 == 15_552
    assert image_tokens(3264, 2448) == 117 * 87 == 10_179


@pytest.mark.parametrize(
    ("size", "target", "tokens"),
    [
        (ImageSize(short_side=768), (1024, 768), 37 * 27),  # 999 tokens instead of 15,552
        (ImageSize(max_pixels=1_003_520), (1156, 867), 41 * 31),  # 1156.7 x 867.6, downwards
        (ImageSize(768, 500_000), (816, 612), 29 * 22),  # the narrower of the two bounds
        (ImageSize(short_side=3024), SPAQ, 15_552),
        (UNBOUNDED, SPAQ, 15_552),
    ],
)
def test_what_becomes_of_a_photograph_of_spaq(size, target, tokens):
    assert size.target(*SPAQ) == target and image_tokens(*target) == tokens
    assert size.target(*SPAQ[::-1]) == target[::-1]


@given(st.integers(11, 5000), st.integers(11, 5000), st.integers(28, 3000), st.integers(784, 10**7))
def test_bounds_are_kept_and_nothing_grows(width, height, short_side, max_pixels):
    size = ImageSize(short_side, max_pixels)
    found = size.target(width, height)
    assume(min(found) > 11)  # a shorter side is not made
    assert found <= (width, height) and min(found) <= short_side and found[0] * found[1] <= max_pixels
    assert size.target(*found) == found  # once is enough
    whole = min(width, height) <= short_side and width * height <= max_pixels
    assert (found == (width, height)) == whole


@pytest.mark.parametrize("bounds", [(27, None), (None, 0), (-1, None)])
def test_bounds_that_leave_no_image_are_rejected(bounds):
    with pytest.raises(ValueError, match=r"Fix: give at least (28|784)"):
        ImageSize(*bounds)


def test_a_small_image_goes_through_untouched():
    data = photo(100, 60)
    assert ImageSize(short_side=60).shrink(data) == (data, None)
    shrunk, before = ImageSize(short_side=30).shrink(data)
    assert before == (100, 60) and Image.open(io.BytesIO(shrunk)).size == (50, 30)


def prepared(root, out, *options: str) -> str:
    result = CliRunner().invoke(app, ["data", "manifest", "--root", str(root), "--labels", str(root / "labels.csv"),
        "--data-source", "made", "--low", "0", "--high", "10", "--out", str(out), *options])  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    lines = ["image,score"]
    for number, size in enumerate([(400, 300), (120, 90), (300, 400)]):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo(*size))
        lines.append(f"{number}.jpg,{2 + number}")
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos"


@pytest.mark.parametrize("images", ["embed", "path"])
def test_shrunk_rows_are_counted_in_card_and_output_and_say_what_they_were(root, tmp_path, images):
    said = prepared(root, tmp_path / "out", "--short-side", "150", "--images", images)
    assert "shrunk: 2 of 3 rows had larger images" in said
    assert card_of(tmp_path / "out")["images"] == {"short_side": 150, "max_pixels": None, "shrunk": 2}
    rows = {
        row["extra_info"]["raw_score"]: row
        for split in ("train", "val", "test")
        for row in rows_of(tmp_path / "out", split)
    }
    details = [json.loads(rows[score]["extra_info"]["details"]).get("shrunk_from") for score in (2.0, 3.0, 4.0)]
    assert details == [[[400, 300]], None, [[300, 400]]]
    sizes = []
    for score in (2.0, 3.0, 4.0):
        (image,) = rows[score]["images"]
        sizes.append(Image.open(io.BytesIO(image["bytes"]) if images == "embed" else image["image"]).size)
    assert sizes == [(200, 150), (120, 90), (150, 200)]


def test_another_bound_writes_the_rows_again_and_none_leaves_the_card_as_it_was(root, tmp_path):
    prepared(root, tmp_path / "out", "--short-side", "150")
    prepared(root, tmp_path / "out", "--short-side", "80")
    assert card_of(tmp_path / "out")["images"]["shrunk"] == 3
    prepared(root, tmp_path / "out")
    assert "images" not in card_of(tmp_path / "out")


class Processor:
    """As far as decoding looks at one."""

    class image_processor:
        patch_size = 14


def test_an_engine_shows_what_the_preparation_would_have_written():
    size, data = ImageSize(short_side=112), photo(560, 448, "PNG")
    by_engine = decode_images(Processor, [data], size)[0]
    by_preparation = decode_images(Processor, [size.shrink(data)[0]])[0]
    assert by_engine.size == (140, 112) and np.array_equal(np.asarray(by_engine), np.asarray(by_preparation))
    assert decode_images(Processor, [data])[0].size == (560, 448)


def test_the_bounds_of_an_engine_are_part_of_what_answers_depend_on():
    assert "short_side" not in EngineSpec("", "a:b").identity()
    assert EngineSpec("", "a:b", short_side=768).identity()["short_side"] == 768
    with pytest.raises(ValueError, match="an endpoint resizes images itself"):
        EngineSpec("x", "openai", "http://localhost", max_pixels=10**6)


def test_a_broken_image_is_named_as_without_bounds():
    with pytest.raises((BadImage, OSError)):
        ImageSize(short_side=100).shrink(b"no image")
