"""Text-to-image generation guided by the reward model: best of n, reflection, and the GenEval table."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.t2i.best_of_n import BestOfN, best_of_n
    from omniq_verl.t2i.compare_selectors import Selector
    from omniq_verl.t2i.generator import Generator, GeneratorSpec, open_generator
    from omniq_verl.t2i.ranking import Choice
    from omniq_verl.t2i.reflection import reflect
    from omniq_verl.t2i.rounds import Reflection

__all__ = [
    "BestOfN",
    "Choice",
    "Generator",
    "GeneratorSpec",
    "Reflection",
    "Selector",
    "best_of_n",
    "open_generator",
    "reflect",
]

export_names(
    __name__,
    {
        "best_of_n": ["BestOfN", "best_of_n"],
        "generator": ["Generator", "GeneratorSpec", "open_generator"],
        "reflection": ["reflect"],
        "rounds": ["Reflection"],
        "ranking": ["Choice"],
        "compare_selectors": ["Selector"],
    },
)
