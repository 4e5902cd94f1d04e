PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint reference gpu-reference study-runs bench-docs bench-harness bench-loaders bench-power bench-proof bench-regress clean gpu-test

run: .venv/.installed
	$(BIN)/bench run --backend zarr --dataset cifar10

test: .venv/.installed-dev
	$(BIN)/pytest -m 'not alone' --numprocesses 2 --dist worksteal --durations 30
	$(BIN)/pytest -m alone

# Only the tests that need a CUDA device.
gpu-test: .venv/.installed-dev
	$(BIN)/pytest -m gpu

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# The matrix behind the first table of the README, on this machine; an hour or two. It goes on where it was stopped.
reference: .venv/.installed
	$(BIN)/bench matrix results/reference/suite.toml --results results/matrix
	$(BIN)/bench table --results results/matrix --metric epoch_s,wait_share

# The same on a GPU: every format, with mixed precision, compiled, validated and augmented.
gpu-reference: .venv/.installed
	$(BIN)/bench matrix results/reference/gpu.toml --results results/gpu
	$(BIN)/bench table --results results/gpu

# The trainings of docs/studies.md, on this machine; a quarter of an hour.
STUDIES ?= results/studies
TRAINING := --optimizer adam --lr 0.001 --val 0.1 --deterministic --no-ceiling --results $(STUDIES)
CLIPS := $(TRAINING) --backend memmap --dataset esc50 --folds all --epochs 8 --batch-size 16 --balanced-sampler
PHOTOS := $(TRAINING) --dataset cifar10 --test test --augment flip+crop

study-runs: .venv/.installed
	$(BIN)/bench run $(CLIPS) --model esc-crnn-attention --weight-decay 0.00001
	for model in sb-cnn sb-cnn-improved; do \
		$(BIN)/bench run $(CLIPS) --model $$model --n-mels 128 --n-fft 1024 --hop 1024 --seconds 3 || exit 1; done
	$(BIN)/bench run $(CLIPS) --model convnet4 --hop 1024
	for backend in memmap hdf5 zarr filesystem; do \
		$(BIN)/bench run $(PHOTOS) --backend $$backend --model cnn --epochs 6 --limit 10000 || exit 1; done
	$(BIN)/bench run $(PHOTOS) --backend memmap --model resnet18 --epochs 4 --limit 2000

MATRIX := results/reference/matrix
WARM := --results $(MATRIX) --where model=cnn --where cache=warm

# The README's figures, from the committed records.
bench-docs: .venv/.installed
	$(BIN)/bench table $(WARM) --metric epoch_s,wait_share --into README.md --passage front
	$(BIN)/bench chart $(WARM) --metric wait_share -o results/reference/waiting.svg
	$(BIN)/bench advise --results $(MATRIX) --where model=cnn --where cache=cold --where dataset=cifar10 --for speed \
		--into README.md
	$(BIN)/bench show $$(ls results/reference/*-cifar10-zarr-cnn-*.json | tail -n 1) --into README.md
	$(BIN)/bench table --results $(MATRIX) --where model=cnn --where cache=cold --into results/README.md --passage cold
	$(BIN)/bench table --results $(MATRIX) --where model=resnet18 --into results/README.md --passage resnet18
	$(BIN)/bench table --results $(MATRIX) --rows dataset,method --columns cache \
		--metric over_ceiling,wait_share,storage_read_mb,peak_pss_mb,store_mb,prepare_s --where model=cnn \
		--into results/README.md --passage costs
	$(BIN)/bench folds --results results/reference/studies --into docs/studies.md
	$(BIN)/bench table --results results/reference/studies --where dataset=cifar10 --rows method --columns model \
		--metric test_accuracy,test_macro_f1,test_loss --into docs/studies.md --passage photos
	$(BIN)/bench table --results results/reference/gpu --rows model,method --columns device \
		--metric epoch_s,ideal_s,wait_share,copy_share,gpu_utilisation,vram_reserved_mb --into README.md --passage gpu
	for id in 20261128-111836-cifar10 20261128-114530-cifar10; do \
		$(BIN)/bench compare --recorded $$id --results results/reference/compare --anyway --into README.md || exit 1; done
	for target in "--summary --into README.md" "--into results/README.md"; do \
		$(BIN)/python tests/benchmarks/loaders.py --show results/reference/loaders/20261128-2-cores.json \
			--before results/reference/loaders/20261122-cifar10-2-cores-before.json $$target || exit 1; done

# What measuring costs, against a bare loop; fails above 1 % of an epoch.
bench-harness: .venv/.installed-dev
	$(BIN)/python tests/benchmarks/harness_cost.py

# How often `bench compare` errs, and what it can find, on simulated series.
bench-power: .venv/.installed
	$(BIN)/python tests/benchmarks/power.py

# How fast every reader is, as ratios to the limit that memory sets; some minutes. BENCH_TEST_DATA names real data.
bench-loaders: .venv/.installed-dev
	$(BIN)/python tests/benchmarks/loaders.py $${BENCH_TEST_DATA:+--data "$$BENCH_TEST_DATA"} --out .proof/loaders.json

# Our own backends and readers by pytest-benchmark: `pytest-benchmark compare` shows what was saved.
bench-regress: .venv/.installed-dev
	$(BIN)/pytest tests/benchmarks --benchmark-only --benchmark-autosave

# A live proof: a reader that takes 10 % longer has to be found, and its equal must not.
bench-proof: .venv/.installed-dev
	PYTHONPATH=tests/plugins $(BIN)/bench compare --dataset truth --source synthetic --model none --batch-size 16 \
		--epochs 1 --backend truth-reads,ms=10 --backend truth-reads,ms=11 --data-dir .proof/data --results .proof/results

clean:
	rm -rf .proof .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "dataset-bench needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ .venv/.installed
