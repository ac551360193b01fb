"""Checks of one row, in the format of ``omniq_verl.data.rows.Row.record``."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from omniq_verl.data.images import read_otherwise
from omniq_verl.doctor.prompt_length import ImageSize, Length, Messages, PromptLength
from omniq_verl.tasks import IMAGE_PLACEHOLDER, Task, find_task, shown, task_names, task_of
from omniq_verl.tasks.outside_text import FIX, messages_fault

_WRITE_ANEW = "write the file with omniq_verl.data.rows.Row.record"
_EXAMPLES = {
    "score": {"score": 3.2},
    "scores": {"scores": {"quality": 3.2, "aesthetics": 4.0}},
    "choice": {"choice": "first"},
    "degradation": {"distortion_class": "blur", "severity": "slight"},
}


class Fault(Exception):
    """One fault of a row and how to fix it. Faults of the same ``kind`` are listed together."""

    def __init__(self, kind: str, what: str, fix: str):
        super().__init__(what)
        self.kind, self.what, self.fix = kind, what, fix


def check_row(
    record: dict[str, Any], lengths: PromptLength | None, max_prompt_length: int, labels: bool = True
) -> tuple[list[Fault], Length | None]:
    """Find all faults of a row, and count the tokens of its prompt. Safe to call from several threads.

    Args:
        record: the row as it is stored in the parquet file.
        lengths: counts tokens; None: do not check lengths.
        max_prompt_length: largest number of tokens a prompt may have.
        labels: whether to check task and label as well, which this package's reward uses.

    Returns:
        The faults, and the prompt's tokens or None if they could not be counted.
    """
    faults: list[Fault] = []
    length = None
    with collected(faults):
        check_id(record)
    if labels:
        with collected(faults):
            check_label(record)
            check_number_of_images(record)
    with collected(faults):
        messages = check_prompt(record)
        sizes = tuple(image_size(image) for image in record["images"] or [])
        if lengths is not None:
            length = prompt_length(messages, sizes, lengths)
            check_length(length, max_prompt_length)
    return faults, length


@contextmanager
def collected(faults: list[Fault]) -> Iterator[None]:
    """Append a fault that is raised in the ``with`` block to the list."""
    try:
        yield
    except Fault as fault:
        faults.append(fault)


def check_id(record: dict[str, Any]) -> None:
    """Check the row's id, which determines its rollouts' seeds and order.

    Raises:
        Fault: the row has no id.
    """
    info = record["extra_info"]
    name = info.get("id") if isinstance(info, dict) else None
    if (not name and name != 0) or not isinstance(name, (str, int)) or isinstance(name, bool):
        fault = "extra_info.id is neither text nor a whole number"
        raise Fault("id", fault, f"{_WRITE_ANEW}, or give each row its own id")


def check_label(record: dict[str, Any]) -> None:
    """Check that the row's task has a reward for its label.

    Raises:
        Fault: the task is unknown, or the label does not fit the task.
    """
    task = _task(record)
    text: Any = (record["reward_model"] or {}).get("ground_truth")
    example = json.dumps(_EXAMPLES[task.asks_for])
    try:
        truth = json.loads(text)
    except (TypeError, ValueError):
        truth = None
    if not isinstance(truth, dict):
        raise Fault(
            "label",
            f"reward_model.ground_truth is {text!r}, not a JSON object",
            f"{_WRITE_ANEW}, which writes {example}",
        )
    if fault := task.label_fault(truth):
        raise Fault("label", fault, f"write it like {example}, or drop the row")


def check_number_of_images(record: dict[str, Any]) -> None:
    """Check that a comparison has the right number of images.

    Raises:
        Fault: it has more or fewer.
    """
    task, images = _task(record), len(record["images"] or [])
    if task.images not in (1, images):
        what = f"the task {task.name} is about {task.images} images, the row has {images}"
        raise Fault("images", what, "write the file with omniq data comparisons")


def _task(record: dict[str, Any]) -> Task:
    info = record["extra_info"]
    name = info.get("task") if isinstance(info, dict) else None
    if not isinstance(name, str):
        raise Fault("task", f"extra_info.task is {shown(name)}", f"name one of {', '.join(task_names())}")
    try:
        find_task(name, "extra_info.task")
    except ValueError as error:
        what, _, fix = str(error).partition(". Fix: ")
        raise Fault("task", what, fix) from error
    try:
        return task_of(info)
    except (TypeError, ValueError) as error:
        raise Fault("task", f"extra_info.scale_low and scale_high are wrong ({error})", _WRITE_ANEW) from error


def check_prompt(record: dict[str, Any]) -> Messages:
    """Return the turns of the prompt after checking that each image has its placeholder.

    Raises:
        Fault: the prompt is not a list of turns with text, or placeholders and images do not match.
    """
    return check_turns(record["prompt"], record["images"], "prompt")


def check_turns(turns: Any, images: Any, column: str) -> Messages:
    """Like ``check_prompt``, for turns in a column of any name."""
    if not turns or not all(map(_is_turn, turns)):
        raise Fault("prompt", f"{column} is not a list of turns with role and text content", _WRITE_ANEW)
    placeholders = sum(turn["content"].count(IMAGE_PLACEHOLDER) for turn in turns)
    if placeholders != len(images or []):
        what = f"the {column} has {placeholders} times {IMAGE_PLACEHOLDER}, the row has {len(images or [])} images"
        raise Fault("prompt", what, f"put one {IMAGE_PLACEHOLDER} into the prompt for each image")
    if fault := messages_fault(turns, None):
        raise Fault("control token", fault.replace("the question", f"the {column}"), FIX)
    return tuple((turn["role"], turn["content"]) for turn in turns)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def image_size(image: dict[str, Any]) -> ImageSize:
    """Read an image completely and return its height and width in pixels. Safe to call from several threads.

    JPEG images are decoded at an eighth of their size. This reads every compressed byte and finds the same damage as
    full decoding, in half the time and with less memory.

    Raises:
        Fault: the image is missing or broken, has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``, or verl would show
            the model a different picture than the one used in scoring.
        MemoryError: there is not enough memory to decode it.
    """
    source = _image_source(image)
    try:
        with Image.open(source) as opened:
            height, width = opened.height, opened.width
            _check_pixels(height * width)
            opened.draft(None, (1, 1))
            opened.load()
    except MemoryError:
        raise  # not a fault of the image
    except Exception as error:  # PIL's decoders raise many kinds of errors on broken data
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
        fix = "fix or drop the row; omniq data does so when it writes the file"
        raise Fault("image", f"the image does not decode ({reason})", fix) from error
    if why := read_otherwise(source.read_bytes() if isinstance(source, Path) else source.getvalue()):
        what = f"verl shows the model a different picture than scoring does ({why})"
        raise Fault("image", what, "write the rows with omniq data, or store omniq_verl.data.images.check_image(bytes)")
    return height, width


def _check_pixels(pixels: int) -> None:
    # PIL only warns about an image between one and two times its limit, and raises this error above that.
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise Image.DecompressionBombError(
            f"Image size ({pixels} pixels) exceeds limit of {most} pixels, could be decompression bomb DOS attack."
        )


def _image_source(image: dict[str, Any]) -> io.BytesIO | Path:
    # Same as verl 0.9.1 (rl_dataset.py:325): "bytes" takes precedence if the key exists; "path" is never used.
    fix = "store the image file's bytes under images[].bytes"
    if not isinstance(image, dict) or not {"bytes", "image"} & image.keys():
        raise Fault("image", "the image has neither bytes nor the name of a file under 'image'", fix)
    if "bytes" in image:
        if not image["bytes"]:
            raise Fault("image", "the image has no bytes", fix)
        return io.BytesIO(image["bytes"])
    path = Path(str(image["image"]).removeprefix("file://"))
    if not path.is_file():
        raise Fault("image", f"the image file {path} does not exist", f"copy it there, or {fix}")
    return path


def prompt_length(messages: Messages, sizes: tuple[ImageSize, ...], lengths: PromptLength) -> Length:
    """Return the number of tokens of a prompt with images of these sizes.

    Raises:
        Fault: the processor rejects an image of this size, or the turns contain control tokens of its tokenizer.
    """
    if fault := lengths.text_fault(messages):
        raise Fault("control token", fault, FIX)
    try:
        return lengths.count(messages, sizes)
    except ValueError as error:
        shape = ", ".join(f"{width} x {height}" for height, width in sizes)
        what = f"the processor rejects an image of {shape} pixels ({error})"
        raise Fault("image", what, "crop or drop the image") from error


def check_length(length: Length, most: int, key: str = "data.max_prompt_length", name: str = "prompt") -> None:
    """Check the length of a prompt.

    Raises:
        Fault: it has more tokens than ``most``, the value of ``key``.
    """
    if length.total <= most:
        return
    what = f"the {name} has {length.total} tokens ({length.images} of the image)"
    fix = f"raise {key} to at least {length.total}, or lower max_pixels of the processor"
    raise Fault("length", f"{what}, {key} is {most}", fix)
