# `make demo` and `make test` are all that a fresh machine needs: each makes the virtual environment it works in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN ?= runs/demo
TABLE ?= $(RUN)-table

.PHONY: demo test lint types notebooks benchmarks clean

demo: export OMP_WAIT_POLICY := passive # threads that spin while they wait slow each other down on a busy machine
demo: $(VENV)/.base
	rm -rf $(RUN) $(TABLE)
	$(BIN)/pyrovae train stick-breaking --data digits --binarize dynamic --out $(RUN) --truncation 50 --concentration 5 --hidden 200,200 \
	  --epochs 100 --batch-size 64 --lr 3e-3 --lr-schedule cosine --kl-weight warm-up:20
	$(BIN)/pyrovae evaluate $(RUN) --num-samples 1000
	$(BIN)/pyrovae sample $(RUN) --num 64 --output mean --out $(RUN)/samples.png
	$(BIN)/pyrovae plot $(RUN)
	@echo
	$(BIN)/pyrovae train tabular --data clinic --out $(TABLE) --num-nets 1
	$(BIN)/pyrovae evaluate $(TABLE) --num-samples 1000 --baselines mean-mode,knn,hist-gradient-boosting
	$(BIN)/python -c "from pyrovae.data.clinic import clinic; clinic().to_csv('$(TABLE)/incomplete.csv', index=False)"
	$(BIN)/pyrovae impute $(TABLE) --input $(TABLE)/incomplete.csv --out $(TABLE)/complete.csv --intervals 0.9
	$(BIN)/pyrovae plot $(TABLE)
	@echo
	@echo "The run folder is $(RUN): config.json, metrics.csv, model.safetensors, samples.png and figures/."
	@echo "The table is in $(TABLE): incomplete.csv, and complete.csv with intervals of what was missing."
	@echo "Next: $(BIN)/pyrovae --help"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

# The package is checked as it is installed: models/ and guides/ lie in pyrovae/.
types: $(VENV)/.lint
	rm -rf build/typed
	mkdir -p build/typed
	cp -R pyrovae build/typed/pyrovae
	cp -R models guides build/typed/pyrovae
	cd build/typed && $(abspath $(BIN))/python -m mypy --config-file ../../setup.cfg --cache-dir ../mypy -p pyrovae

# Two at a time, with a thread each: their nets are too small to gain from a second one.
notebooks: export OMP_NUM_THREADS := 1
notebooks: $(VENV)/.notebook
	ls tutorials/*.ipynb | \
	  xargs -P 2 -n 1 $(BIN)/python -m jupyter nbconvert --to notebook --execute --stdout > /dev/null

# Hours of training on two cores; every one resumes, and benchmarks/RESULTS.md says how long it took.
benchmarks: $(VENV)/.test
	sh benchmarks/run_all.sh $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

$(VENV)/.base: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(INSTALL) --editable '.[test]'
	touch $@

$(VENV)/.notebook: $(VENV)/.base
	$(INSTALL) --editable '.[notebook]'
	touch $@

$(VENV)/.lint: $(VENV)/.base
	$(INSTALL) --editable '.[lint]'
	touch $@
