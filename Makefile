# The README lists the same commands without make.
PYTHON ?= python3
BIN := .venv/bin
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.5

.PHONY: setup setup-bench setup-targets demo compare bench bench-gpu results docs test test-slow test-pythons lint format clean

setup: .venv/installed

.venv/installed: requirements.txt requirements/dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

setup-bench: .venv-bench/installed

.venv-bench/installed: requirements/bench.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r requirements/bench.txt
	touch $@

# The TPU compiler, for train.py --plan --target=v5e:4x4 on a machine without a TPU.
setup-targets: .venv-targets/installed

.venv-targets/installed: requirements/targets.txt requirements.txt
	$(PYTHON) -m venv .venv-targets
	.venv-targets/bin/pip install --quiet --disable-pip-version-check -r requirements/targets.txt
	touch $@

demo: setup
	sh scripts/demo.sh $(BIN)/python

# Compares the three architectures at an equal budget:
#   make compare CONFIG=configs/python_stdlib.py COMPAREFLAGS="--equal=flops --trials=8"
CONFIG ?= configs/cldr.py

compare: setup
	$(BIN)/python -m analysis.compare --config=$(CONFIG) $(COMPAREFLAGS)

# Other systems are timed too after `make setup-bench`. The compilation cache is off, since
# compilation is part of what is measured.
BENCHMARKS := train_step decode evaluation_speed data startup scaling

bench: setup
	for name in $(BENCHMARKS); do \
	  env -u JAX_COMPILATION_CACHE_DIR $(BIN)/python -m benchmarks.$$name $(BENCHFLAGS) || exit 1; \
	done

# GPU benchmarks, in bfloat16. PEERS is a Python with a CUDA build of torch.
PEERS ?= python3

bench-gpu: setup
	$(BIN)/python -m benchmarks.published --kernels=xla,blockwise
	$(BIN)/python -m benchmarks.published --works=base,big --kernels=xla,cudnn --no-attention-dropout
	$(BIN)/python -m benchmarks.train_step --work=rnnsearch,base,xl_small --dtype=bfloat16 --peers=$(PEERS)
	$(BIN)/python -m benchmarks.population --members=16 --dtype=bfloat16

# Writes the tables of docs/results.md from the runs kept in docs/results/.
results: setup
	$(BIN)/python -m analysis.publish_results

# Writes docs/configs.md from configs/base.py.
docs: setup
	$(BIN)/python scripts/config_docs.py

test: setup
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses=4 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Runs tests and lint with each of python3.11 to python3.14, and with the lowest versions.
test-pythons:
	sh scripts/test_pythons.sh

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-* .cache runs
