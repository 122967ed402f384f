# Two commands do everything, each from a clean clone:  make app   and   make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  ?=
RUNTIME ?=
ASR    ?=
HOST   ?= 127.0.0.1
PORT   ?= 7860
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: setup setup-sglang app test test-fast bench lint clean

setup: $(VENV)/.ready

# The marker is written last, so that an interrupted installation starts again.
$(VENV)/.ready: requirements.txt scripts/setup.sh
	PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV) requirements.txt
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

# SGLang lives apart from the rest; the script returns at once where it is there already.
setup-sglang:
	PYTHON="$(PYTHON)" sh scripts/setup_sglang.sh .venv-sglang

app: setup
	$(BIN)/python -m app --host $(HOST) --port $(PORT) $(if $(MODEL),--model "$(MODEL)") \
		$(if $(RUNTIME),--runtime "$(RUNTIME)") $(if $(ASR),--asr "$(ASR)")

test: $(VENV)/.ready-dev setup-sglang
	$(BIN)/python scripts/browser.py
	$(BIN)/python scripts/sandbox.py
	$(MAKE) lint
	$(BIN)/python -m pytest

test-fast: $(VENV)/.ready-dev
	$(MAKE) lint
	$(BIN)/python -m pytest -m "not e2e and not sglang"

# Under twenty minutes on two idle cores; .bench keeps what is measured against and the clips. SGLang's figures are
# measured where setup-sglang was made before.
bench: setup
	$(BIN)/python -m bench.published.install
	$(BIN)/python -m bench --write

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .venv-sglang .bench .mypy_cache .ruff_cache .pytest_cache
