#!/usr/bin/env bash
# The whole test suite: ruff, mypy, pytest, in the environment that quickstart.sh makes.
#
#   ./launchers/test.sh                       # everything
#   ./launchers/test.sh -k sampler -x         # arguments go to pytest
#
# All checks run, also after one has failed; the exit code says whether all were good.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

setup_environment deepspeed,wandb,gguf,llm,ray,dev
cd "$REPO"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false

failed=()
check() {
  say "$*"
  "$@" || failed+=("$1")
}
check ruff check .
check ruff format --check .
check mypy
if (($#)); then
  check pytest "$@"
else
  # All cores; `nproc` itself would obey OMP_NUM_THREADS.
  check pytest -m "not slow" -n "$(env -u OMP_NUM_THREADS nproc)" --dist loadfile
  # Two at a time on any machine: a job has processes of its own, and starting them takes one core.
  check pytest -m slow -n 2 --dist loadfile --durations 15
fi
if ((${#failed[@]})); then
  die "not good: ${failed[*]}"
fi
