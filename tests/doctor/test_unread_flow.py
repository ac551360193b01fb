"""What the analysis of source code takes for a read of a setting, on small programs."""

import textwrap
from pathlib import Path

import pytest

from omniq_verl.doctor.unread.flow import Flow
from omniq_verl.doctor.unread.program import Program
from omniq_verl.doctor.unread.walk import follow

TREE = {
    "lr": 1.0,
    "steps": 10,
    "engine": {"_target_": "verl.Engine", "strategy": "fsdp", "compile": True, "size": 2, "prefetch": False},
    "model": {"path": "x", "options": {"a": 1, "b": 2}, "extra": {}},
}
TYPES = {("engine",): "Engine"}


def analysed(folder: Path, source: str, assumed: dict | None = None) -> Flow:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(source))
    program = Program([("verl.program", path)])
    flow = Flow(program, TREE, TYPES, assumed or {})
    (main,) = program.functions["main"]
    follow(flow, main, "config")
    return flow


def read(folder: Path, source: str, assumed: dict | None = None) -> set[str]:
    """Values of the configuration that are read."""
    flow = analysed(folder, source, assumed)
    nodes = {node.path for node in flow.read if node not in flow.written}
    return {".".join(path) for path in nodes if path in flow.values}


@pytest.mark.parametrize(
    "expression",
    [
        "config.lr",
        "config['lr']",
        "config.get('lr')",
        "config.pop('lr', None)",
        "getattr(config, 'lr', 0)",
        "hasattr(config, 'lr')",
        "'lr' in config",
        "OmegaConf.select(config, 'lr')",
        "float(config.lr or 1)",
        "f'{config.lr}'",
        "[each for each in [config]][0].lr",
        "{'a': config}['a'].lr",
        "dict(a=config)['a'].lr",
        "(lambda given: given.lr)(config)",
        "deepcopy(config).lr",
        "[config.get(key) for key in ('lr',)]",
    ],
)
def test_ways_to_read_a_value(tmp_path, expression):
    assert read(tmp_path, f"def main(config):\n    use({expression})") == {"lr"}


@pytest.mark.parametrize("expression", ["print(config.lr)", "logger.info(f'{config.lr}')", "config.lr_of_another"])
def test_logging_and_other_names_are_no_reads(tmp_path, expression):
    assert read(tmp_path, f"def main(config):\n    {expression}") == set()


def test_the_message_of_an_error_is_no_read(tmp_path):
    source = """
        def main(config):
            assert config.steps > 0, f"{config.lr}"
            if config.steps == 7:
                raise ValueError(config.lr)
    """
    assert read(tmp_path, source) == {"steps"}


def test_a_node_keeps_its_place_through_calls_classes_and_results(tmp_path):
    source = """
        class Base:
            def __init__(self, settings):
                self.settings = settings

        class Worker(Base):
            def __init__(self, config, *, model):
                super().__init__(config.engine)
                self.path = model.path

            def run(self):
                return self.settings.size

        def pick(config):
            return config.model

        def main(config):
            worker = Worker(config, model=pick(config))
            worker.run()
    """
    assert read(tmp_path, source) == {"engine.size", "model.path"}


def test_registries_partials_and_keyword_arguments_are_followed(tmp_path):
    source = """
        from functools import partial
        KNOWN = {}

        def register(name):
            def decorator(cls):
                KNOWN[name] = cls
                return cls
            return decorator

        @register("fsdp")
        class Worker:
            def __init__(self, engine, **kwargs):
                self.engine = engine
                self.start(**kwargs)

            def start(self, model):
                use(self.engine.size, model.path)

        def loss(config):
            return config.lr

        def make(name, **kwargs):
            return KNOWN[name](**kwargs)

        def main(config):
            make(config.engine.strategy, engine=config.engine, model=config.model)
            use(partial(loss, config=config))
    """
    assert read(tmp_path, source) == {"engine.strategy", "engine.size", "model.path", "lr"}


def test_remote_classes_are_followed(tmp_path):
    source = """
        import ray

        class Worker:
            def __init__(self, config):
                self.config = config

            def run(self):
                use(self.config.size)

        def main(config):
            worker = ray.remote(Worker).options(num_cpus=1).remote(config=config.engine)
            ray.get(worker.run.remote())
    """
    assert read(tmp_path, source) == {"engine.size"}


def test_branches_of_another_strategy_are_left_out(tmp_path):
    source = """
        def main(config):
            if config.engine.strategy == "fsdp":
                use(config.engine.prefetch)
            elif config.engine.strategy in ("fsdp2",):
                use(config.engine.size)
    """
    assert read(tmp_path, source, {("engine", "strategy"): "fsdp"}) == {"engine.strategy", "engine.prefetch"}
    assert read(tmp_path, source, {("engine", "strategy"): "fsdp2"}) == {"engine.strategy", "engine.size"}
    assert read(tmp_path, source) == {"engine.strategy", "engine.prefetch", "engine.size"}


def test_what_a_dataclass_always_overwrites_is_not_read(tmp_path):
    source = """
        from dataclasses import dataclass
        from verl.utils import omega_conf_to_dataclass

        @dataclass
        class Engine:
            strategy: str
            compile: bool
            size: int

            def __post_init__(self):
                object.__setattr__(self, "strategy", "other")
                if self.size > 1:
                    self.compile = False

        def main(config):
            engine = omega_conf_to_dataclass(config.engine)
            use(engine.strategy, engine.compile)
    """
    assert read(tmp_path, source) == {"engine.compile", "engine.size"}


def test_properties_of_a_dataclass_read_its_fields(tmp_path):
    source = """
        class Engine:
            @property
            def halves(self):
                return self.size / 2

        def main(config):
            use(omega_conf_to_dataclass(config.engine).halves)
    """
    assert read(tmp_path, source) == {"engine.size"}


@pytest.mark.parametrize(
    "expression",
    [
        "other.start(config.model)",
        "other.start(**config.model)",
        "[use(key) for key, value in config.model.items()]",
        "config.model[input()]",
        "getattr(config.model, input())",
    ],
)
def test_a_node_that_leaves_the_program_counts_as_read_with_all_its_keys(tmp_path, expression):
    flow = analysed(tmp_path, f"import other\ndef main(config):\n    use({expression})")
    assert ("model",) in {node.path for node in flow.whole}


def test_the_whole_configuration_given_away_is_a_log_and_no_read(tmp_path):
    flow = analysed(tmp_path, "import wandb\ndef main(config):\n    wandb.init(config=config)")
    assert not flow.whole and not flow.read
