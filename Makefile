# `make demo` runs the main job end to end on data that it makes; `make test` runs the checks.
# Both set up .venv from constraints.txt first.
PYTHON ?= python3.11
VENV := .venv

.PHONY: setup test demo clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

test: setup
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" scripts/check

demo: setup
	rm -rf demo
	$(VENV)/bin/featcache demo --out demo

clean:
	rm -rf $(VENV) demo build *.egg-info
