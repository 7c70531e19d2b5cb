# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: two threads inside torch on a busy machine are slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-lowest slow slow-short types figures tables bench accuracy metrics pages docs look lint clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	touch $@

demo: .venv/installed
	$(BIN)/python scripts/demo.py --out demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses=auto --dist=worksteal

# The lowest versions that pyproject.toml promises, in an environment of their own. Warnings of old
# releases about each other are not errors here, and the reference pictures are those of one matplotlib.
LOWEST := .venv-lowest/bin

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[dev]'
	touch $@

test-lowest: .venv-lowest/installed
	$(LOWEST)/pytest -o filterwarnings=default --ignore=tests/test_reference_pictures.py \
	  --numprocesses=auto --dist=worksteal

types: .venv/installed
	$(BIN)/mypy

slow: .venv/installed
	$(BIN)/pytest -m slow --numprocesses=auto --dist=worksteal

# The slow tests of files in which none takes many minutes.
LONG := clients corpus docs fuzz galaxies hostile_strings house_metrics kills scale scripts site_browser soak

slow-short: .venv/installed
	$(BIN)/pytest -m slow $(LONG:%=--ignore=tests/test_%.py) --numprocesses=auto --dist=worksteal

# The pictures of the flows first, then those of the other systems; real tables are drawn where CNF_SHARED_DATA is.
GALLERY := density_estimation sample_flow flow_trajectories toy_gallery image_density tables \
  euler adjoint ode_classifier augmented augmented_density variational latent_ode
ifdef CNF_SHARED_DATA
GALLERY += point_maps seven_columns what_if
endif

# The code of every page of the documentation, that for sbi and pyro too, and the scores of Ray, Dask and
# Spark.
pages: .venv/docs
	$(BIN)/pytest -m slow --numprocesses=auto tests/test_docs.py tests/test_scale.py

figures: .venv/installed
	set -e; for name in $(GALLERY); do $(BIN)/python scripts/$$name.py; done

# The tables of README and docs, from the numbers in figures/.
tables: .venv/installed
	$(BIN)/python scripts/doc_tables.py

bench: .venv/installed
	$(BIN)/python scripts/benchmark_speed.py
	$(BIN)/python scripts/circular_speed.py
	$(BIN)/python scripts/benchmark_errors.py

accuracy: .venv/installed
	$(BIN)/python scripts/benchmark_accuracy.py
	$(BIN)/python scripts/small_tables.py

metrics: .venv/installed
	$(BIN)/python scripts/house_metrics.py
	$(BIN)/python scripts/files_entered.py

# A site that opens from the disk. Once its packages are there, it needs no network. The tutorials run as
# it is built; `make docs QUICK=1` leaves that to `make pages`, whose budgets are a few training steps.
.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

docs: .venv/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 \
	  $(if $(QUICK),-D nb_execution_mode=off) docs build/site
	$(BIN)/python scripts/check_site.py build/site

# The built site in a browser: contrast, a telephone's width, the search from the disk, the keyboard.
look: .venv/installed
	$(BIN)/pytest -m slow tests/test_site_browser.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-lowest demo build docs/scripts *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
