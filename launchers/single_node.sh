#!/usr/bin/env bash
# A fine-tuning job on this machine, one process per GPU (two on a CPU).
#
#   ./launchers/single_node.sh --config launchers/configs/llama3_8b_lora.yaml --task data/train.jsonl
#   LAUNCHER=torchrun NUM_PROCESSES=4 ./launchers/single_node.sh --config run.yaml --ratio 0.1
#   CUDA_VISIBLE_DEVICES=2,3 ./launchers/single_node.sh --config run.yaml
#
# The same command again goes on from the last checkpoint. In an environment of your own, the
# launchers can be called as they are:
#
#   deepspeed --num_gpus 8 launchers/train.py --config run.yaml
#   torchrun --nproc_per_node 8 launchers/train.py --config run.yaml
#   accelerate launch --num_processes 8 --mixed_precision no launchers/train.py --config run.yaml
#
# (accelerate: DeepSpeed and precision come from run.yaml; leave them out of accelerate's own
# config.) Variables: see launchers/common.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $# -gt 0 ]] || die "usage: launchers/single_node.sh --config FILE [--key value ...]"
setup_environment deepspeed,wandb,gguf
processes="$(default_processes)"
start_job "$processes" "$@"
