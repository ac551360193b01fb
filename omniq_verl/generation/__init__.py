"""Ask models for answers to many prompts with images."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.generation.engines import open_async_engine, open_engine
    from omniq_verl.generation.request import Answer, AsyncEngine, Engine, Request, Sampling, StreamingEngine
    from omniq_verl.generation.spec import EngineSpec

__all__ = [
    "Answer",
    "AsyncEngine",
    "Engine",
    "EngineSpec",
    "Request",
    "Sampling",
    "StreamingEngine",
    "open_async_engine",
    "open_engine",
]

export_names(
    __name__,
    {
        "engines": ["open_async_engine", "open_engine"],
        "request": ["Answer", "AsyncEngine", "Engine", "Request", "Sampling", "StreamingEngine"],
        "spec": ["EngineSpec"],
    },
)
