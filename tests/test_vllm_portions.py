"""What vLLM is given together is bounded by the pixels of its images."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from omniq_verl.generation.vllm_offline import portions


def prompts(*sizes: tuple[int, int]) -> list[dict]:
    return [{"prompt": "", "multi_modal_data": {"image": [Image.new("L", size)]}} for size in sizes]


def test_a_portion_ends_before_its_images_are_too_many():
    given = [*prompts((4, 5), (4, 5), (10, 10), (1, 1)), {"prompt": "of no image"}]
    assert list(portions(given, 40)) == [given[:2], [given[2]], given[3:]]
    assert list(portions(given, 141)) == [given]
    assert list(portions([], 40)) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=20), st.integers(1, 200))
def test_nothing_is_lost_and_only_a_single_prompt_has_more(sizes, most):
    all_of_them = prompts(*sizes)
    found = list(portions(iter(all_of_them), most))
    assert [prompt for portion in found for prompt in portion] == all_of_them
    areas = [
        sum(image.width * image.height for prompt in one for image in prompt["multi_modal_data"]["image"])
        for one in found
    ]
    assert all(area <= most or len(portion) == 1 for area, portion in zip(areas, found, strict=True))
