# genmini: `make demo` shows it, `make test` proves it.
PYTHON3 ?= python3
PY = .venv/bin/python
$(shell .venv/bin/python -c "" 2>/dev/null || rm -f .venv/ready)   # a broken environment is made again

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 24

.venv/ready: setup.py pyproject.toml constraints.txt
	@echo "Making .venv (once; PyTorch and Triton are large)"
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv --clear .venv
	.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $@

build: .venv/ready ## compile csrc/ into kernels/lib/ (only what changed)
	$(PY) csrc/build.py --strict

demo: build      ## train a MADE on the embedded digits for about a minute, and draw its samples
	$(PY) -m genmini train made --data digits --out runs/demo --overwrite

test: build      ## everything that proves the project (needs no GPU)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

test-docs: build  ## every `genmini` command that README.md and docs/ show, each once
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m docs -n auto --dist worksteal tests/project/test_documentation.py

test-thorough: build ## every mutant, counted drivers, ThreadSanitizer, hypothesis at length
	HYPOTHESIS_PROFILE=thorough GENMINI_THOROUGH=1 $(PY) -m pytest -n auto --dist worksteal
	$(PY) csrc/sanitize.py --thorough

# The first release of each library that pyproject.toml promises. On Linux PyTorch 2.11 comes with CUDA alone (3 GB).
OLDEST = "torch==2.11.*" "triton==3.6.*" "pillow==11.*" "numpy<2.4" scipy safetensors tqdm matplotlib pytest hypothesis
test-oldest: .venv/ready ## a few tests with the oldest PyTorch promised, in .venv-oldest (3 GB, downloaded once)
	@.venv-oldest/bin/python -c "import torch, pytest" 2>/dev/null || ($(PYTHON3) -m venv --clear .venv-oldest && \
		.venv-oldest/bin/pip install -q --disable-pip-version-check $(OLDEST))
	$(PY) csrc/build.py --strict
	.venv-oldest/bin/python -m pytest -q tests/kernels -k "registered and not thorough"
	.venv-oldest/bin/python -m pytest -q tests/kernels/test_layers.py tests/kernels/test_vector_quantizer.py \
		tests/project/test_train.py tests/project/test_runs.py tests/project/test_resume.py

# Five libraries and what they import. The rest that they need is in .venv: pip would bring a second PyTorch.
PEERS = vector-quantize-pytorch==1.32.0 einops==0.8.2 einx==0.4.3 frozendict==2.5.1 loguru==0.7.3 \
	torch-einops-utils==0.2.0 zuko==1.6.0 nflows==0.14 normflows==1.7.3 pythae==0.1.2 cloudpickle==3.1.3 \
	pydantic==2.14.4 pydantic-core==2.50.5 annotated-types==0.8.0 typing-inspection==0.4.5
.venv-peers/ready: Makefile | .venv/ready
	rm -rf .venv-peers
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --target .venv-peers $(PEERS)
	@touch $@

test-peers: build .venv-peers/ready ## genmini.swap in real models of five other libraries, which .venv-peers holds
	PYTHONPATH=.venv-peers $(PY) -m pytest -q -m peers tests/project/test_peers.py

table-peers: build .venv-peers/ready ## what swaps into these models gain (a quarter of an hour), and write docs/swap.md
	OMP_NUM_THREADS=1 PYTHONPATH=.venv-peers $(PY) bench/swap_peers.py

test-arm: .venv/ready ## the kernels for CPUs on an emulated ARM processor: the same bits as here
	$(PY) csrc/arm.py

sanitize: .venv/ready ## all kernels and rungs: AddressSanitizer, UndefinedBehaviorSanitizer, counters, ThreadSanitizer
	$(PY) csrc/sanitize.py --thorough

bench: build .venv-peers/ready ## time every room beside its peers, and store the table of this machine
	.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e ".[bench]"
	PYTHONPATH=.venv-peers $(PY) bench/run.py

bench-scaling: build ## how the cost of rooms and of steps grows, and write docs/scaling.png (two minutes)
	$(PY) bench/scaling.py

table-ceilings: build ## predict how near its bound each kernel can come (six minutes), and write docs/counting.md
	OMP_NUM_THREADS=1 $(PY) bench/ceilings.py

table-likelihood: build ## train likelihood models on the digits, three seeds each (an hour), and write docs/results.md
	$(PY) bench/table_likelihood.py

table-plane: build ## train flows and RNADE on points of the plane (half an hour), and write docs/results.md
	.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(PY) bench/table_plane.py

table-latent: build ## train all latent models on the digits, three seeds each (half an hour), and write docs/results.md
	$(PY) bench/table_latent.py

table-samples: build ## train every model that draws digits, three seeds each (an hour), and write docs/results.md
	$(PY) bench/table_samples.py

table-translate: build ## train every CycleGAN of the digits, three seeds each (15 minutes), and write docs/results.md
	$(PY) bench/table_translate.py

table-text: build ## train imagen with encoders of three sizes, and clip (80 minutes), and write docs/results.md
	$(PY) bench/table_text.py

sheet: build       ## train a model of each family of digits (half an hour of a core), and draw docs/families.png
	$(PY) bench/sheet.py

table-mnist: build ## train on MNIST in the folder that GENMINI_MNIST10K names (two hours), and write docs/results.md
	$(PY) bench/table_mnist.py

table-mnist-samples: build ## train GANs and a diffusion on the same images, and write docs/results.md
	$(PY) bench/table_mnist_samples.py

gpu:             ## on a machine with an NVIDIA GPU, with the python3 that has its PyTorch: tests, sanitizers, benches
	$(PYTHON3) -m pip install --no-build-isolation --no-deps -e .
	$(PYTHON3) csrc/build.py --strict
	$(PYTHON3) -m pytest -m "not mutants"
	$(PYTHON3) -m pytest -q -s tests/kernels/test_tensor_core_model.py
	$(PYTHON3) csrc/sanitize.py --gpu
	$(PYTHON3) tests/kernels/triton_rungs.py --sanitize
	$(PYTHON3) bench/predictions.py
	$(PYTHON3) bench/run.py

lint: .venv/ready ## ruff, clang-format, and clang-tidy for products of unsigned numbers in kernels
	.venv/bin/ruff check .
	git ls-files "*.cu" "*.cpp" "*.h" | xargs .venv/bin/clang-format --dry-run --Werror
	$(PY) csrc/widening.py

clean:           ## remove what was built
	rm -rf .venv .venv-oldest .venv-peers build kernels/lib *.egg-info .cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help build demo test test-docs test-thorough test-oldest test-peers test-arm sanitize bench gpu lint clean
.PHONY: sheet table-likelihood table-plane table-latent table-samples table-translate table-text
.PHONY: bench-scaling table-ceilings table-mnist table-mnist-samples table-peers
.DEFAULT_GOAL := help
