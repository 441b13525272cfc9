# make demo and make test need Python 3.10 to 3.14, and no compiler. Everything they make lies in this folder.
PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
CONFIG = configs/hg_2stack_synthetic.py
RUN = work_dirs/hg_2stack_synthetic
# Networks this small gain nothing from a second thread, which waits for whatever else the machine does.
ONE_THREAD = OMP_NUM_THREADS=1

# A stamp is written when a step has succeeded. This one holds what TORCH was, which stays until another one is given.
INSTALLED = $(VENV)/.installed
ifeq ($(origin TORCH),undefined)
TORCH := $(if $(wildcard $(INSTALLED)),$(shell cat $(INSTALLED)),-r requirements/torch.txt)
endif

.PHONY: help demo data test docs-test lint clean FORCE
.NOTPARALLEL:

help:
	@echo 'make demo    draw synthetic persons, train two small stacks on them, test; leaves a picture and a report.'
	@echo '             PHOTOS=folder: then draw keypoints of the network of the package on photographs'
	@echo 'make test    run the tests; PYTEST="..." is passed on to pytest'
	@echo 'make docs-test run the commands of README and docs, on a few synthetic persons'
	@echo 'make lint    ruff (lint, import order, format) and mypy'
	@echo 'make clean   remove $(VENV), build leftovers and what make demo made'
	@echo
	@echo 'PYTHON=python3.13 VENV=.venv313        another Python, in an environment of its own'
	@echo 'TORCH="torch==2.11.0 --index-url ..."  another torch: anything that pip install takes'
	@echo 'TORCH=                                 the torch that $(VENV) has. To use the one of your Python, run'
	@echo '                                       $(PYTHON) -m venv --system-site-packages $(VENV) before'

demo: $(RUN)/.finished
	$(VENV)/bin/python tools/test.py $(CONFIG) "$$(ls -t $(RUN)/best_*.pth | head -n 1)"
	@echo 'Test persons, prediction beside truth: $(CURDIR)/$(RUN)/predictions.png'
	$(VENV)/bin/hg_plugin report $(RUN)
ifdef PHOTOS
	$(VENV)/bin/python tools/infer.py "$(PHOTOS)" --flip-test --out-dir $(RUN)/photos
endif

# Goes on where an interrupted training stopped.
$(RUN)/.finished: | data
	$(ONE_THREAD) $(VENV)/bin/python tools/train.py $(CONFIG) $(if $(wildcard $(RUN)/last_checkpoint),--resume)
	@touch $@

# Leaves a complete set alone.
data: $(VENV)/.plugin
	$(VENV)/bin/hg_plugin make_synthetic data/synthetic --train 1500 --val 200

test: $(VENV)/.plugin $(VENV)/.test
	$(ONE_THREAD) $(VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(PYTEST)

docs-test: $(VENV)/.plugin $(VENV)/.test
	$(ONE_THREAD) $(VENV)/bin/python -m pytest -s -m 'slow or not slow' tests/test_docs.py tests/e2e/test_docs_run.py

lint: $(VENV)/.plugin $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

ifneq ($(TORCH),$(shell cat $(INSTALLED) 2>/dev/null))
$(INSTALLED): FORCE
endif
$(INSTALLED): requirements/build.txt requirements/runtime.txt requirements/torch.txt
	@$(if $(wildcard $(VENV)/bin/pip),$(VENV)/bin/python,$(PYTHON)) -c \
	'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' || { \
	echo 'error: hg_plugin supports Python 3.10 to 3.14, which $(PYTHON) is not; give another: PYTHON=python3.11'; \
	exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps -r requirements/build.txt
	$(PIP) install --no-deps -r requirements/runtime.txt
	$(if $(TORCH),$(PIP) install $(TORCH))
	@$(VENV)/bin/python -c 'import torch' || { \
	echo 'error: $(VENV) has no torch that works; make help says how to choose one'; exit 1; }
	@echo '$(TORCH)' > $@

# Version and requirements are read at installation; all other edits take effect without one.
$(VENV)/.plugin: $(INSTALLED) setup.py hg_plugin/__init__.py
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(INSTALLED) requirements/test.txt
	$(PIP) install --no-deps -r requirements/test.txt
	@touch $@

$(VENV)/.lint: $(INSTALLED) requirements/lint.txt
	$(PIP) install --no-deps -r requirements/lint.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist hg_plugin.egg-info data/synthetic $(RUN)
