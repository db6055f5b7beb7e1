# Set-up happens by itself: every target first makes .venv from requirements.txt, when it is missing or older than the pins.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format bench clean

demo: .venv/pins           ## pre-train, fine-tune, evaluate on data that ship with it; a page with curves at the end
	$(BIN)/python -m mixer_jax demo --workdir=runs/demo

test: lint                 ## every test, on the CPU, without network
	$(BIN)/python -m pytest

lint: .venv/pins
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/pins
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/pins          ## speed of the training step and of the input on this machine, as JSON
	$(BIN)/python -m mixer_jax bench

clean:
	rm -rf .venv runs

.venv/pins: requirements.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
