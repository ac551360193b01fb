# Two commands: `make quickstart` and `make test`. Both set up what they need first.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
SEED ?= 0
PY := $(VENV)/bin/python

.PHONY: help quickstart test test-fast test-cluster lint bench clean

help:
	@echo "make quickstart   train a tiny model end to end on this CPU (RUN=folder SEED=0)"
	@echo "make test         all tests;  make test-fast: those that need no Ray and no vLLM"
	@echo "make test-cluster a training job on two Ray nodes of this machine"
	@echo "make lint         ruff;       make bench: start-up times, gate, rewards"

$(VENV)/.installed: setup.py constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -q -e '.[cpu,serve,t2i,onnx,dev]' -c constraints/cpu.txt
	touch $@

quickstart: $(VENV)/.installed
	VERL_PLATFORM=cpu $(PY) -m omniq_verl.quickstart --out $(RUN) --seed $(SEED)

test: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m pytest -q -n 2 -m "not slow and not cluster"
	$(PY) -m pytest -q -m slow

test-fast: $(VENV)/.installed
	$(PY) -m pytest -q -n 2 -m "not slow and not cluster"

test-cluster: $(VENV)/.installed
	$(PY) -m pytest -q -m cluster

lint: $(VENV)/.installed
	$(PY) -m ruff check .

bench: $(VENV)/.installed
	$(PY) benchmarks/start_up.py
	$(PY) benchmarks/mechanisms.py

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache
