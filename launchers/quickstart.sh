#!/usr/bin/env bash
# From a fresh machine to a safety-mixed fine-tuning run: sets up, then trains the small model.
#
#   ./launchers/quickstart.sh                  about 5 minutes on 2 CPU cores, the first time
#   ./launchers/quickstart.sh --ratio 0.2      any key of the settings, as for train.py
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

setup_environment deepspeed,gguf,wandb
cpu_environment
cd "$ROOT"
say "fine-tuning on $(processes) processes ($(gpu_kind)); results go to runs/quickstart"
exec deepspeed --log_level warning --num_gpus "$(processes)" --master_port "$(free_port)" \
    launchers/train.py --config launchers/configs/quickstart.yaml "$@"
