PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
READY := .venv/ready

.PHONY: env export demo weights test test-slow mutants docs

env: $(READY)

# the stamp is written last: an installation that broke off is taken up again
$(READY): constraints.txt settings.ini setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

export: $(READY)
	$(BIN)/python tools/check.py one_module
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/readme.py

demo: $(READY)
	mkdir -p runs
	$(BIN)/papermill nbs/06_train_llm.ipynb runs/06.ipynb -p out_dir $(CURDIR)/runs/06
	@echo "executed notebook: $(CURDIR)/runs/06.ipynb"
	@echo "pictures:          $(CURDIR)/runs/06"

# the weights of the emoji models from nothing, for hours; it goes on where it was stopped: make weights SEEDS=0,1
weights: $(READY)
	mkdir -p runs
	$(BIN)/papermill nbs/08c_recipe.ipynb runs/08c.ipynb -p preset emoji -p out_dir $(CURDIR)/runs/weights $(if $(SEEDS),-p seeds "$(SEEDS)") $(if $(CORES),-p cores $(CORES)) $(if $(READERS),-p readers $(READERS))

# all tests, or those that have every word of ONLY in their name: make test ONLY="cells 02_vq"
test: $(READY)
	$(BIN)/python tools/check.py $(ONLY)

# the chapters that have slow cells, with those, and other smoke runs: about twenty minutes
test-slow: $(READY)
	$(BIN)/python tools/check.py --slow $(ONLY)

# change the code in many places, one at a time, and list what no test notices: make mutants ONLY="nbs/02_vq.ipynb -n 100"
mutants: $(READY)
	$(BIN)/python tools/mutate.py $(ONLY)

docs: $(READY)
	$(BIN)/python tools/docs.py
