#!/usr/bin/env bash
# One command from a fresh clone to a fine-tuned model: makes .venv, installs the tested versions,
# fetches a small real model and fine-tunes it with 10 % safety rows, under DeepSpeed ZeRO-2.
#
#   ./launchers/quickstart.sh                                # about 5 minutes on two CPU cores
#   ./launchers/quickstart.sh --max_steps 5 --ratio 0.2      # any key of the settings
#   DEVICE=cpu NUM_PROCESSES=1 ./launchers/quickstart.sh     # see launchers/common.sh
#
# A later run starts in seconds. Results: runs/quickstart.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

setup_environment deepspeed,wandb,gguf
cd "$REPO"

processes="$(default_processes)"
# The settings' micro batch is 2: the smallest global batch of at least 8 rows that all share.
rows=$((processes * 2))
batch=$(((8 + rows - 1) / rows * rows))
say "fine-tuning with $processes processes; results go to runs/quickstart unless you say otherwise"
start_job "$processes" --config launchers/configs/quickstart.yaml \
  --global_batch_size "$batch" "$@"
