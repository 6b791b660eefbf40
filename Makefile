# make demo   set up, then the main job on three real models: table and demo-report/report.html
# make test   set up, then lint, types, import rules and the default tests
# make help   the rest
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV ?= .venv
# Where torch comes from; empty means pip's own settings. On an index whose torch is the CUDA
# build, give the address of PyTorch's CPU wheels: make test TORCH_INDEX_URL=...
TORCH_INDEX_URL ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
VENV_TF ?= .venv-tf
# Of NVIDIA's packages, those of the extra "cuda".
CUDA_COMPILER := ^nvidia-(cuda-(cccl|crt|nvdisasm|nvrtc|runtime)|nvfatbin)==
FOLDERS := compiler models passes targets
# Tests run in so many processes at once; a test and its neighbours in a file mostly share one.
JOBS ?= 2
PYTEST := python -m pytest -n $(JOBS) --dist worksteal
TYPES := $(BIN)/mypy -p burnish
IMPORTS := cd build/ns && "$(abspath $(BIN))/lint-imports" --no-logo --config "$(CURDIR)/pyproject.toml"

.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

.PHONY: venv
venv: $(READY) ## the virtual environment, with everything that tests and demo need

$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or say make PYTHON=..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	PIP="$(PIP)" TORCH_INDEX_URL="$(TORCH_INDEX_URL)" .ci/install-torch
	@echo "make: installing burnish and the libraries of its tests and demo"
	$(PIP) install -qq -c constraints.txt -e '.[bench,dev,keras,onnx,ray,tflite,zoo]'
	@if $(PIP) list --format=freeze | grep -E '^nvidia-' | grep -vE '$(CUDA_COMPILER)' >&2; then \
	  echo "make: these CUDA packages came along though the CPU path uses none; see TORCH_INDEX_URL in the Makefile" >&2; exit 2; fi
	@touch $@

.PHONY: cuda-compiler
cuda-compiler: $(READY) ## NVIDIA's compiler libraries (100 MB): what building for CUDA takes
	$(PIP) install -qq -c constraints.txt -e '.[cuda]'

# mypy and import-linter do not follow the editable install: links show them the folders where
# the packages are.
.PHONY: links
links:
	@mkdir -p build/ns/burnish
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder build/ns/burnish/$$folder; done
	@for entry in $(filter-out burnish/__pycache__,$(wildcard burnish/*)); do ln -sfn ../../../$$entry build/ns/$$entry; done

.PHONY: lint
lint: $(READY) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) links ## mypy on the source folders
	$(TYPES)

.PHONY: imports
imports: $(READY) links ## import-linter: one direction between the folders
	$(IMPORTS)

# Types and import rules keep one core busy: they run beside the tests, and are told after them.
.PHONY: test
test: lint links ## lint, then types, import rules and the default tests
	@($(TYPES) && $(IMPORTS)) > build/rules.log 2>&1 & rules=$$!; \
	trap 'kill $$rules 2> /dev/null || true' EXIT; failed=0; \
	$(BIN)/$(PYTEST) || failed=$$?; \
	wait $$rules || failed=$$?; cat build/rules.log; exit $$failed

.PHONY: test-all
test-all: $(READY) ## the heavy tests, and the property tests with more examples
	BURNISH_FULL=1 $(BIN)/$(PYTEST) -m "heavy or property"

# TensorFlow in an environment of its own: most who use Burnish have none.
$(VENV_TF)/.ready: pyproject.toml constraints.txt
	test -x $(VENV_TF)/bin/python || "$(PYTHON)" -m venv $(VENV_TF)
	PIP="$(VENV_TF)/bin/python -m pip --disable-pip-version-check" TORCH_INDEX_URL="$(TORCH_INDEX_URL)" .ci/install-torch
	@echo "make: installing burnish and TensorFlow into $(VENV_TF)"
	$(VENV_TF)/bin/python -m pip --disable-pip-version-check install -qq -c constraints.txt -e '.[dev,tensorflow]'
	@touch $@

.PHONY: test-tensorflow
test-tensorflow: $(VENV_TF)/.ready ## TensorFlow, Keras and TFLite models, in an environment with TensorFlow
	$(VENV_TF)/bin/$(PYTEST) -m tensorflow tests/compiler/tensorflow

.PHONY: demo
demo: $(READY) ## the main job on three real models; writes demo-report/report.html
	$(BIN)/burnish demo --out demo-report

.PHONY: bench
bench: $(READY) ## 19 models beside every peer and the machine's limit; an hour on a quiet machine
	$(BIN)/burnish bench --out benchmarks/results

.PHONY: bench-zoo
bench-zoo: $(READY) ## every zoo model beside its baseline; wants a quiet machine
	$(BIN)/python benchmarks/zoo.py

.PHONY: runtime-wheel
runtime-wheel: $(READY) ## burnish-runtime, which runs artifacts without TVM and torch: dist/*.whl
	$(PIP) wheel -qq --no-deps --no-build-isolation -w dist ./runtime
	rm -rf runtime/build runtime/*.egg-info
	@ls -l dist/burnish_runtime-*.whl

GPU_PYTHON ?= 3.12
.PHONY: gpu-bundle
gpu-bundle: cuda-compiler ## what benchmarks/gpu.py needs on a machine with a GPU: build/gpu-bundle.zip
	$(BIN)/python benchmarks/gpu_bundle.py --python $(GPU_PYTHON)

.PHONY: clean
clean: ## remove what the build and the tests leave; the virtual environment stays
	rm -rf build dist *.egg-info demo-report .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
