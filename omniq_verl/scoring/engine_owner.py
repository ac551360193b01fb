"""The engine of a ``Scorer`` or ``Comparer``, from opening to closing."""

from typing import Self

from omniq_verl.generation.engines import open_engine
from omniq_verl.generation.request import Engine, close_engine
from omniq_verl.generation.spec import EngineSpec


class EngineOwner:
    """Opens an engine and closes it, on request or at the end of a ``with`` block.

    Args:
        spec: the engine.

    Raises:
        ValueError: there is no such engine, or the model is not safe to open.
    """

    def __init__(self, spec: EngineSpec):
        self._engine: Engine | None = open_engine(spec)

    @property
    def engine(self) -> Engine:
        """The engine that answers. For vLLM, ``engine.spent`` shows where the time is spent (``feeding.Spent``).

        Raises:
            RuntimeError: it has been closed.
        """
        if self._engine is None:
            raise RuntimeError(f"this {type(self).__name__} has been closed. Fix: open another one")
        return self._engine

    def close(self) -> None:
        """Give back the engine's memory. vLLM keeps that of its GPU otherwise, even without any reference to it."""
        engine, self._engine = self._engine, None
        if engine is not None:
            close_engine(engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
