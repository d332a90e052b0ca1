# make study [PROFILE=quick] | test | lab | bench | lint | refresh | teach | clean.  Needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
PROFILE ?= quick
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_READY := $(VENV)/.ready-test
# One installation at a time in this folder: the lock is held by the installing process itself, however it ends.
LOCKED = $(PYTHON) -c 'import fcntl, os, sys; lock = open(".venv.lock", "w"); fcntl.flock(lock, fcntl.LOCK_EX); os.set_inheritable(lock.fileno(), True); os.execvp(sys.argv[1], sys.argv[1:])'
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
# Whether another make has installed meanwhile.
CURRENT = test $@ -nt pyproject.toml -a $@ -nt constraints.txt
# JupyterLab serves this machine alone and asks for its token, whatever a user's own settings of Jupyter say;
LOCAL = --ip=127.0.0.1 --ServerApp.allow_remote_access=False --ServerApp.allow_origin= --ServerApp.allow_origin_pat= \
  --ServerApp.disable_check_xsrf=False --ServerApp.allow_credentials=False --ServerApp.authenticate_prometheus=True \
  --ServerApp.tornado_settings={} --ServerApp.identity_provider_class=snrlib.notebooks.lab.SignIn \
  --ServerKernelManager.ip=127.0.0.1 --ServerKernelManager.transport_encryption=auto
# it asks no other machine for news, updates or extensions, and no reader whether it may.
QUIET = --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly \
  --LabApp.app_settings_dir="$(CURDIR)/snrlib/notebooks/lab_settings"
# What only tests and benchmarks import may be an extra; all else needs nothing but the dependencies.
NOT_RUN = tests|benchmarks|notebooks/conftest
# Tests run on up to four cores, each process on one thread; a module stays in one, so that its costly fixtures are made once.
PARALLEL = -n auto --maxprocesses 4 --dist loadscope
# Kernels that train keep the memory of one step for the next, as those of a study do (snrlib.utils.provenance).
KEEP = MALLOC_MMAP_THRESHOLD_=2147483648 MALLOC_TRIM_THRESHOLD_=8589934592

.PHONY: study test lab bench lint refresh teach clean
.DELETE_ON_ERROR:

study: $(READY)
	$(BIN)/snr study --profile $(PROFILE)

lab: $(READY)
	$(BIN)/jupyter lab $(LOCAL) $(QUIET) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

test: export OMP_NUM_THREADS = 1
test: $(TEST_READY)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"
	$(KEEP) $(BIN)/python -m pytest $(PARALLEL) --nbval-lax --nbval-current-env notebooks

bench: $(TEST_READY)
	$(BIN)/python benchmarks/distances.py
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/neighbours.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/mahalanobis.py

lint: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 snrlib
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry . tests benchmarks
	$(BIN)/deptry . --optional-dependencies-dev-groups test,bench --extend-exclude '$(NOT_RUN)'

refresh: $(TEST_READY)
	$(BIN)/snr refresh
	$(BIN)/ruff format notebooks

# Copies for students and instructors, and slides: data/runs/teach.
teach: $(READY)
	$(BIN)/snr teach

clean:
	rm -rf $(VENV) .venv.lock

# An interrupted installation leaves no stamp: the next make goes on with it.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python >= 3.11 is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.12")'
	@echo "Installing into $(VENV): a few minutes the first time."
	@$(LOCKED) sh -c '$(CURRENT) || { $(PYTHON) -m venv $(VENV) && $(INSTALL) . && touch $@; }'

$(TEST_READY): $(READY)
	@$(LOCKED) sh -c '$(CURRENT) || { $(INSTALL) ".[test,bench]" && touch $@; }'
