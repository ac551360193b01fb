"""RALI (arXiv:2510.11369, sec. 4): distils a reasoning model's quality judgement into an image encoder.

The encoder is aligned with the reasoning on image-text pairs. Its embeddings are compressed to a few basis vectors,
each with a score, and cosines to these vectors give an image's score.
"""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.rali.align import AlignConfig, align
    from omniq_verl.rali.export import export_onnx
    from omniq_verl.rali.fit_files import FitConfig, fit_files
    from omniq_verl.rali.pairs import PairsConfig, make_pairs
    from omniq_verl.rali.scorer import RaliScorer

__all__ = [
    "AlignConfig",
    "FitConfig",
    "PairsConfig",
    "RaliScorer",
    "align",
    "export_onnx",
    "fit_files",
    "make_pairs",
]

export_names(
    __name__,
    {
        "align": ["AlignConfig", "align"],
        "export": ["export_onnx"],
        "fit_files": ["FitConfig", "fit_files"],
        "pairs": ["PairsConfig", "make_pairs"],
        "scorer": ["RaliScorer"],
    },
)
