# `make sweep` and `make test` do all the set-up; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: sweep test test-slow test-cluster check format types install clean

sweep: install  ## the demo: synthetic horses, CPU, minutes
	$(BIN)/python run_sweep.py

test: install  ## the default tests, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install  ## the long ones: real kills of real sweeps, Ray Train groups
	$(BIN)/python -m pytest -m slow

test-cluster: install  ## two hosts in namespaces: as root, with Debian's openssh-server, openssh-client, rsync, iproute2
	$(BIN)/python -m pytest -m cluster -s tests/cluster

check: install types  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q tests/test_layers.py

# mypy cannot follow the package map (datasets/ has no __init__.py), so it looks at the folders as the package they are.
types: install
	@link=$$(mktemp -d) && mkdir $$link/posesweep && \
	ln -s "$(CURDIR)"/posesweep/*.py "$(CURDIR)"/posesweep/verbs $(addprefix "$(CURDIR)"/,search_spaces datasets trainables analysis) $$link/posesweep/ && \
	cd $$link && MYPYPATH=$$link "$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" \
	  --cache-dir "$(CURDIR)/.mypy_cache" --namespace-packages --explicit-package-bases posesweep; \
	status=$$?; rm -r $$link; exit $$status

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PoseSweep needs Python 3.11 or newer; say make PYTHON=python3.11")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,export,formats,dashboard]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
