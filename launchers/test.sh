#!/usr/bin/env bash
# Sets up like quickstart.sh, then lints, checks types and runs the whole test suite.
#
#   ./launchers/test.sh                 everything
#   ./launchers/test.sh -k sampler      arguments go to pytest
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

setup_environment deepspeed,dev,gguf,wandb
cpu_environment
cd "$ROOT"
say "ruff"
ruff check .
ruff format --check .
say "mypy"
mypy
say "pytest"
exec python -m pytest "$@"
