"""Export a fitted RALI model to ONNX, for runtimes without PyTorch."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from omniq_verl.data.files import atomic_path
from omniq_verl.rali.checkpoint import RaliModel, load_rali

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest accepted difference of a score, in units of the scale."""


def export_onnx(folder: Path, out: Path) -> float:
    """Write the model as one ONNX file and compare its scores with the original's.

    The input ``pixels`` is uint8 ``[batch, side, side, 3]``, made by ``omniq_verl.rali.preprocessing``, whose settings
    are in the file's metadata under ``preprocessing``, next to ``task`` and ``scale``. The output ``scores`` is float32
    ``[batch]``.

    Args:
        folder: written by ``omniq rali fit``.
        out: must end in .onnx; an existing file is replaced.

    Returns:
        The largest difference from the original's scores, on random pixels in batches of one and three.

    Raises:
        ValueError: a package is missing, or the file does not end in .onnx.
        RuntimeError: the scores differ by more than ``TOLERANCE``; the file is removed.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"the export needs {', '.join(missing)}. Fix: pip install 'omniq-verl[onnx]'")
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the file name must end in .onnx")
    model, about = load_rali(folder)
    side = model.encoder.preprocessing.side
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None  # as dynamo=True
    known = {"preprocessing": asdict(model.encoder.preprocessing), "task": about.task, "scale": asdict(about.scale)}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in known.items()})
    with atomic_path(out) as unfinished:
        program.save(unfinished, external_data=False)
        off = max(_difference(model, unfinished, batch) for batch in (1, 3))
        if not off <= TOLERANCE:
            raise RuntimeError(f"the exported model's scores are off by {off:g}; nothing was written")
    return off


def _difference(model: RaliModel, path: Path, batch: int) -> float:
    import onnxruntime

    side = model.encoder.preprocessing.side
    pixels = np.random.default_rng(batch).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"pixels": pixels})
    with torch.inference_mode():
        return float(np.abs(scores - model(torch.from_numpy(pixels)).numpy()).max())
