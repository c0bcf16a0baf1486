# Every command of the project. Bare `make` lists them.
#
# Each target does its own set-up: a virtual environment in .venv, made with $(PYTHON),
# which must be 3.11 or newer. Further arguments go through ARGS: make test ARGS="-k fence".

PYTHON ?= python3
ARGS ?=
# Test processes at once, each with its own servers. On two processors a fifth made `make quick` up to a sixth
# longer. One that dies ends the run and names its test: xdist may wait for ever for what it had in hand.
PROCESSES ?= 4
# Python keeps what it compiled, wherever that is switched off: else each test process compiles all tests again.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal --max-worker-restart 0

.PHONY: help setup demo demo-check quick test test-pgbouncer coverage lint style fix docs map walk bench \
	bench-pages screenshot claims manifest wheel lane lanes \
	release-check check clean

help: ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv and install the package with everything for developing it.

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"flask_opsjobs needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + \
		". Say which to use: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## Run the example host with its own Postgres and Valkey, until Ctrl-C.
	$(BIN)/python -m tools.demo $(ARGS)

demo-check: $(READY) ## Run the demo headless and exit: a job, a retry, a workflow with a signal, a rescue.
	$(BIN)/python -m tools.demo --check $(ARGS)

# What `make lint` runs is left out, and the tests of pages, of forensics and of the example host. Plans need many
# rows, races many threads: both take long.
QUICK := -m "not processes and not slow" --few-cases --ignore tests/test_house.py --ignore tests/test_sql.py \
	--ignore tests/web --ignore tests/bridge --ignore tests/host --ignore tests/forensics \
	--ignore-glob '*plans.py' --ignore-glob '*races.py'
quick: $(READY) ## Run the pure tests and database tests, two cases of each at most, in three minutes.
	$(PYTEST) $(QUICK) $(ARGS)

# What `make check` adds.
CHECKED :=
test: $(READY) ## Run all tests, also those with a browser, with kills and with the wheel; print the slowest.
	$(PYTEST) --durations 25 $(CHECKED) $(ARGS)

THROUGH_PGBOUNCER := tests/engine tests/loops tests/endings tests/workflows tests/batches \
	tests/web/test_round_trips.py
test-pgbouncer: $(READY) ## Run tests of workers, loops, runs and pages through PgBouncer, which must be installed.
	$(BIN)/python -m pytest --pgbouncer prepared $(THROUGH_PGBOUNCER) $(ARGS)
	$(BIN)/python -m pytest --pgbouncer unprepared $(THROUGH_PGBOUNCER) $(ARGS)

coverage: $(READY) ## Run the tests and print which lines they never reach.
	$(BIN)/coverage erase
	-$(BIN)/coverage run --parallel-mode -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: style ## Check style, types, import contracts, templates, statements and the rules of the house.
	$(BIN)/python -m pytest -q tests/test_house.py tests/test_sql.py

style: $(READY) ## The part of lint that runs no tests.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/djlint --lint --quiet templates

fix: $(READY) ## Repair what ruff can repair.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## Build the documentation; a warning is an error.
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

map: $(READY) ## Print the package as a tree, each module with its first sentence.
	@$(BIN)/python -m tools.map

WALK ?= job
walk: $(READY) ## Print the files that a job passes, for docs/internals.md too; those of a retry with WALK=retry.
	@$(BIN)/python -W ignore -m tools.walk $(WALK) > docs/_walks/$(WALK).txt && cat docs/_walks/$(WALK).txt

bench: $(READY) ## Measure managed jobs against plain RQ.
	$(BIN)/python -m tools.bench $(ARGS)

bench-pages: $(READY) ## Measure every page on a million jobs; on ten with ARGS="--rows 10000000".
	$(BIN)/python -m tools.bench_pages $(ARGS)

screenshot: $(READY) ## Take pictures of all pages of a demo into docs/_static.
	$(BIN)/python -m tools.screenshot $(ARGS)

claims: $(READY) ## Print what README and docs claim without a limit (never, always, …), for a person to judge.
	@$(BIN)/python -m tools.claims

manifest: $(READY) ## Write migrations/manifest.json: what the migration steps make, for the doctor.
	$(BIN)/python -m tools.manifest

wheel: $(READY) ## Build the wheel into dist/, and install it alone in a test.
	$(BIN)/python -m build --wheel --no-isolation
	$(BIN)/python -m pytest tests/test_package.py

lane: $(READY) ## Run the tests marked `lane` on other versions: LANE=postgres-15; the names are in tools/lanes.
	@$(if $(LANE),,echo 'Say which lane: make lane LANE=lowest'; exit 1)
	@$(BIN)/python -m tools.lanes $(LANE) --processes $(PROCESSES) $(ARGS)

lanes: $(READY) ## Run all lanes, installing what they need, and write docs/lanes.toml.
	@$(BIN)/python -m tools.lanes --processes $(PROCESSES) $(ARGS)

release-check: $(READY) ## Check that a release can be published; CONTRIBUTING.md lists the steps.
	@$(BIN)/python -m tools.release_check $(ARGS)

# CI says SLOW=yes. Without it those slow tests are left out that show no promise of docs/support.toml.
SLOW ?= no
UNLESS_SLOW := $(if $(filter yes,$(SLOW)),,-m "not slow or promise")
# Both at once: tests leave processors idle, and mypy without its cache takes 20 s of one.
check: $(READY) ## Check what a change needs: lint, tests, docs, wheel, the lowest versions; SLOW=yes for all tests.
	@$(MAKE) --no-print-directory --jobs 2 style test CHECKED='--fail-slow --proofs $(UNLESS_SLOW)'
	@$(BIN)/python -m tools.lanes lowest --only-run --processes $(PROCESSES)

clean: ## Remove what is built; .venv and .demo stay.
	rm -rf dist build .lanes docs/_build .coverage .coverage.* \
		.pytest_cache .mypy_cache .ruff_cache .import_linter_cache
