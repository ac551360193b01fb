"""Agent loop workers without servers and queue, and digests of the functions of verl that ours replace."""

import hashlib
import inspect
from types import ModuleType
from typing import Any

from omniq_verl.tasks import TECHNICAL
from omniq_verl.tiny.model import TinySize, build_processor
from omniq_verl.tiny.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(TECHNICAL.questions, 400)
PROCESSOR = build_processor(TOKENIZER, TinySize())


def worker(rollouts: ModuleType, processor: Any = PROCESSOR, reward: Any = None) -> Any:
    """Our agent loop worker without servers and queue."""
    made = object.__new__(rollouts.GroupAgentLoopWorker)
    made.processor, made.tokenizer, made.mm_processor_kwargs, made.reward = processor, TOKENIZER, {}, reward
    return made


def digest_of(function: Any) -> str:
    """Digest of a function's source, to notice that upstream has changed it."""
    source = inspect.getsource(inspect.unwrap(function))
    return hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
