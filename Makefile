# The two commands of a newcomer are `make demo` and `make test`; both make what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What the image is made from: make image PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
PYTHON_IMAGE ?= python:3.11-slim-bookworm
IMAGE ?= billhook
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Many tests wait for processes of their own, so there are half as many more at work as there are cores.
PROCESSES = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() * 3 // 2)')
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
EXPORT := uv export --quiet --no-header --format requirements.txt --no-emit-project

# Where it is set, each of the processes that tests start, hundreds, would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test storm coverage check format lock image clean

help:
	@echo "make demo      see the whole of Billhook at work on this machine (Ctrl-C ends it)"
	@echo "make test      run every test: unit, integration on both databases, acceptance"
	@echo "make storm     20,000 events, 15,000 deliveries, 36 months of schedules, while processes are killed; an hour"
	@echo "make coverage  the same, and which lines and branches they reach"
	@echo "make check     run the linters, the type checker and the import rules"
	@echo "make format    format the code"
	@echo "make lock      write the locks anew from pyproject.toml"
	@echo "make image     build the container image; docs/deployment.md says how to name its base by digest"

demo: $(VENV)/ready
	@$(BIN)/billhook demo

test: $(VENV)/ready
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

storm: $(VENV)/ready
	TEST_STORM_EVENTS=20000 $(BIN)/pytest --log-cli-level=info tests/acceptance/test_storm.py
	TEST_DELIVERIES=5000 $(BIN)/pytest --log-cli-level=info tests/acceptance/test_deliveries_killed.py
	TEST_SCHEDULES=500 TEST_MONTHS=36 TEST_FAULTS=0.01 TEST_STROKE=4 \
		$(BIN)/pytest --log-cli-level=info tests/acceptance/test_schedules_killed.py

coverage: $(VENV)/ready
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/ready
	$(BIN)/$(EXPORT) --extra dev -o requirements.lock
	@# The same versions, since all come from one uv.lock: what runs in the image, and what builds there.
	$(BIN)/$(EXPORT) --extra otel --extra sentry -o requirements-image.lock
	$(BIN)/$(EXPORT) --only-group build -o requirements-build.lock
	rm -f uv.lock  # it names the registry that this machine uses

image:
	docker build --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE):$(VERSION) --tag $(IMAGE) .

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Billhook needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "making the environment in $(VENV) (half a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@# The lock names all that is needed. Left to resolve an extra, pip would pick a newer release, which has no hash here.
	@# uv, which is in it, needs a fifth of pip's time for the rest; pip does it where uv finds no index.
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.txt
	@$(PIP) -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock || \
		$(PIP) -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
