# Every target that needs the environment depends on `setup`, so any of them may be the first command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_PIPELINES := $(BIN)/python -m pipelines

# A Make variable becomes the flag of the same name in lower case, and only when it was given on the command line
# or in the environment: the defaults stand in one place, the dataclasses of pipelines/config.
flag = $(if $($(1)),--$(subst _,-,$(shell echo $(1) | tr A-Z a-z)) '$($(1))')
flags = $(foreach name,$(1),$(call flag,$(name)))

# Each test file in one process, because its tests share fixtures; in the order of tests/conftest.py.
test_flags = -n $(or $(TEST_PROCESSES),2) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: docs help setup install demo test test-ci test-all lint plan extract status info verify convert train-head evaluate predict export report probe analyse serve describe gc doctor clean file-map benchmark-read benchmark-gpu gpu-wheels

help:  ## Lists every target
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# What .venv was installed from, by content: a checkout that only renews dates installs nothing.
digest := $(shell cat pyproject.toml constraints.txt | cksum)
ifneq ($(digest),$(shell cat $(VENV)/.installed 2>/dev/null))
setup: install
endif
setup:  ## Creates .venv and installs the project and its pinned dependencies, once

install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Permafrost needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Pass PYTHON=/path/to/python3.11"; exit 2; }
	@rm -f $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,oracles]'
	@echo '$(digest)' > $(VENV)/.installed

demo: setup  ## Runs the whole pipeline on generated data with the bundled small backbone, under runs/demo ([DATASET=coco|k400|own|depth|pose] [HEAD=])
	$(RUN_PIPELINES) demo $(call flags,DATASET HEAD RUN) $(ARGS)

test: setup  ## The test suite: CPU, offline, minutes; two processes ([TEST_PROCESSES=])
	$(BIN)/python -m pytest $(test_flags) $(ARGS)

test-ci: setup  ## What .ci/run tests besides `make test`: marker `ci`, about 17 minutes; two processes
	$(BIN)/python -m pytest $(test_flags) -m 'ci and not slow' $(ARGS) || [ $$? -eq 5 ]  # 5: no such test was found

test-all: setup  ## Every test, the slow ones and those of test-ci too
	$(BIN)/python -m pytest $(test_flags) -m 'not gpu' $(ARGS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

plan: setup  ## Estimates size and time of an extraction; writes nothing (DATASET= MODEL= ...)
	$(RUN_PIPELINES) plan $(call flags,DATASET MODEL SPLIT DATA STORES WEIGHTS LEVELS CODEC VIEWS PIXELS SUBSET HEAD RECIPE) $(ARGS)

extract: setup  ## Extracts a data set's split into a store; resumes an unfinished one (DATASET= MODEL= ...)
	$(RUN_PIPELINES) extract $(call flags,DATASET MODEL SPLIT DATA STORES WEIGHTS LEVELS CODEC VIEWS PIXELS SUBSET ENGINE) $(ARGS)

status: setup  ## Lists written, missing and skipped rows of a store (STORE=)
	$(RUN_PIPELINES) status $(call flags,STORE STORES) $(ARGS)

info: setup  ## Prints identity, geometry and sizes of a store (STORE=)
	$(RUN_PIPELINES) info $(call flags,STORE STORES) $(ARGS)

verify: setup  ## Structure and sizes of a store; ARGS=--full for every checksum, ARGS=--repair for damaged shards (STORE=)
	$(RUN_PIPELINES) verify $(call flags,STORE STORES) $(ARGS)

convert: setup  ## Makes a store of another codec from a complete one, without the backbone (STORE= CODEC=q2)
	$(RUN_PIPELINES) convert $(call flags,STORE CODEC STORES) $(ARGS)

train-head: setup  ## Trains a head, or several in one pass, from a store (HEAD= or HEAD=fpn,bifpn5 ...)
	$(RUN_PIPELINES) train-head $(call flags,HEAD DATASET MODEL STORE STORES LEVELS PIXELS DATA SUBSET SEEDS RECIPE RUN) $(ARGS)

evaluate: setup  ## Measures a run's metrics on a test store (RUN=)
	$(RUN_PIPELINES) evaluate $(call flags,RUN STORE VIEWS DATA) $(ARGS)

predict: setup  ## The frozen backbone and a trained head on new images or videos (RUN= INPUT= [OUT=])
	$(RUN_PIPELINES) predict $(call flags,RUN INPUT OUT) $(ARGS)

report: setup  ## Compares runs with each other and the paper; OUT=page.html writes a page (RUN="runs/a runs/b")
	$(RUN_PIPELINES) report $(RUN) $(call flags,OUT) $(ARGS)

probe: setup  ## k-NN or logistic regression on stored features, without a training (METHOD=knn|logreg [STORE= VAL_STORE=])
	$(RUN_PIPELINES) probe $(call flags,STORE VAL_STORE METHOD DATASET MODEL STORES SUBSET OUT) $(ARGS)

analyse: setup  ## The papers' analyses of a store, a run or a live backbone (KIND=cka|attention|kernels|pca|neighbours|codec STORE= | RUN= | MODEL= DATASET=)
	$(RUN_PIPELINES) analyse $(call flags,KIND STORE RUN PART MODEL WEIGHTS DATASET SPLIT DATA CROP_SIZE LEVELS ROWS OUT) $(ARGS)

serve: setup  ## Serves the pages of a folder's stores and runs over HTTP, read-only ([ROOT=] [HOST=] [PORT=])
	$(RUN_PIPELINES) serve $(call flags,ROOT HOST PORT) $(ARGS)

export: setup  ## Writes a run as a file to share: FORMAT=safetensors (the head), pt2 or onnx, with a model card (RUN= OUT=head.safetensors)
	$(RUN_PIPELINES) export $(call flags,RUN FORMAT OUT SIZE PART) $(ARGS)

describe: setup  ## Looks at a folder of own data and writes its description, to pass as DATASET (DATA= OUT=my.yaml)
	$(RUN_PIPELINES) describe $(call flags,DATA OUT) $(ARGS)

gc: setup  ## Lists orphaned partial files; ARGS=--delete removes them
	$(RUN_PIPELINES) gc $(call flags,STORE STORES) $(ARGS)

doctor: setup  ## Checks the environment and prints how to fix it
	$(RUN_PIPELINES) doctor $(ARGS)

clean:  ## Removes caches and build folders, never .venv, data, stores or runs
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

docs: setup  ## Builds the documentation site from docs/ and the public docstrings into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo site/index.html

file-map: setup  ## Rewrites the file map of docs/architecture.md from the files' docstrings
	$(BIN)/python docs/file_map.py

trust-table: setup  ## Runs the tests of faults and rewrites the table of docs/trust.md
	$(BIN)/python -m pytest -q -m 'not slow and not gpu' --junitxml .trust.xml $$($(BIN)/python docs/trust_table.py --files) && $(BIN)/python docs/trust_table.py .trust.xml; rm -f .trust.xml

benchmark-read: setup  ## Reading speed beside memmap, zarr-python and tensorstore
	$(BIN)/python -m benchmarks.stores.read $(ARGS)

gpu-wheels: setup  ## Collects in build/gpu-wheels the packages that benchmark-gpu needs beside torch (ARGS=scipy: for Mask2Former)
	$(BIN)/python -m benchmarks.gpu.wheels $(ARGS)

# No setup: it runs on a machine that has torch and no network. PYTHON names its Python 3.12.
benchmark-gpu:  ## Every GPU claim on one GPU in about 8 minutes, offline; result.md under build/gpu-benchmark
	$(PYTHON) -m benchmarks.gpu $(ARGS)
