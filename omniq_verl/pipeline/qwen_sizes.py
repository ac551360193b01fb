"""Sizes of Qwen2.5-VL, written out from its architecture, for estimates without its files."""

from omniq_verl.doctor.model_shape import Shape, VisionShape

VISION = VisionShape(layers=32, hidden=1280, intermediate=3420, patch_values=1176, patches_per_token=4)


def tensors(hidden: int, layers: int, intermediate: int, key_value: int, vocabulary: int, tied: bool) -> list[int]:
    """Number of parameters of each tensor of a Qwen2.5-VL."""
    h, m, kv, v = hidden, intermediate, key_value, 1280
    layer = [h * h, h, kv * h, kv, kv * h, kv, h * h, m * h, m * h, m * h, h, h]
    block = [3 * v * v, 3 * v, v * v, v, *[3420 * v, 3420] * 2, v * 3420, v, v, v]
    merger = [v, 4 * v * 4 * v, 4 * v, h * 4 * v, h]
    head = [vocabulary * h] * (1 if tied else 2)
    return [*head, *layer * layers, h, 1176 * v, *block * 32, *merger]


TENSORS_3B = tensors(2048, 36, 11008, 256, 151_936, tied=True)
TENSORS_7B = tensors(3584, 28, 18944, 512, 152_064, tied=False)
QWEN_3B = Shape(sum(TENSORS_3B), 36, 2048, 151_936, 11008, 256, VISION, tied=True)
QWEN_7B = Shape(sum(TENSORS_7B), 28, 3584, 152_064, 18944, 512, VISION)
