# Everything a developer or a pipeline runs. Needs make and Python >= 3.11 with venv, nothing else.
SHELL := /bin/sh
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$name -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
INFRA ?= embedded
WORKERS ?= 4
TESTS ?= tests
BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: help env demo test images lint types format docs check bench bench-long bench-policy chaos chaos-long chaos-mutants clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

env: $(STAMP)  ## create .venv/ with everything in it, and the command .venv/bin/recourse

# The stamp comes last, so an interrupted installation is taken up again. Every package is checked against its hash.
$(STAMP): requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Recourse needs Python 3.11 or newer with its venv module; none was found." >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
		--require-hashes --requirement requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore \
		--no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: env  ## four organisations, sixty complaints, three weeks, one audit
	@$(BIN)/recourse demo

test: env  ## the whole suite; INFRA=embedded|containers|external, TESTS=path, WORKERS=n
	INFRA=$(INFRA) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

images: env  ## container images of PostgreSQL, NATS and Recourse, built from the same wheels
	$(BIN)/python deploy/images/build.py

lint: env  ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env  ## static types
	$(BIN)/mypy

format: env  ## rewrite the code in the one format, and what is derived from it
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .
	$(BIN)/python deploy/render_nats.py

docs: env  ## rewrite the pages and files that are made from others
	$(BIN)/python -m shared.policy.reference_doc > docs/policy-reference.md.new
	mv docs/policy-reference.md.new docs/policy-reference.md
	$(BIN)/python -m tests.guide.assembling

check: lint types test  ## all of these

bench: env  ## every figure against its target, into build/bench.json; CHECK=1 fails on a miss
	$(BIN)/python -m tests.bench

bench-long: env  ## the same with ten million sleeping cases and ten times the data
	$(BIN)/python -m tests.bench --long

bench-policy: env  ## speed of the policy engine
	$(BIN)/python -m tests.bench.policy

chaos: env  ## kills, power cuts, lost streams, full disks …, judged by the auditor; SEED=n, REQUIRE=all, ONLY=case,case
	$(BIN)/python -m tests.chaos gate

chaos-long: env  ## the same with the numbers of a night
	$(BIN)/python -m tests.chaos long

chaos-mutants: env  ## eight faults put into the services on purpose, each of which the auditor must find
	$(BIN)/python -m tests.chaos mutants

clean:  ## remove the environment and caches, never the data in .recourse/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build recourse.egg-info
