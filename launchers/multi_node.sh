#!/usr/bin/env bash
# A fine-tuning job on several machines, listed in a hostfile. Start it on one of them.
#
#   HOSTFILE=hosts.txt ./launchers/multi_node.sh --config launchers/configs/llama3_70b_lora.yaml
#
# hosts.txt has one machine a line, with its number of GPUs:
#     node1 slots=8
#     node2 slots=8
#
# Needed: ssh without a password from here to every machine, pdsh here, and the repository, its
# environment, the data and output_dir at the same paths everywhere (a shared file system).
#
# Variables:
#   HOSTFILE      the list of machines (default: /job/hostfile, as for deepspeed)
#   MASTER_ADDR   address of the first machine that the others can reach (default: asked by ssh)
#   MASTER_PORT   a port open between the machines (default: 29500)
#   NODE_LAUNCHER how processes are started: pdsh (default), openmpi, mpich, mvapich
#   PASS_ENV      further variables to set on every machine, separated by spaces
#
# NCCL_*, FI_*, GLOO_*, TORCH_*, CUDA_*, OMP_*, HF_HOME, HF_HUB_*, HF_ENDPOINT, SAFEMIX_*,
# WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_BASE_URL are passed on. Keys are not: they
# would stand on a command line for all to see. Log in on the machines (`wandb login`,
# `hf auth login`) and set `tracking.wandb: online`.
#
# With torchrun instead, on every machine i of n:
#   torchrun --nnodes n --node_rank i --nproc_per_node 8 --master_addr node1 --master_port 29500 \
#     launchers/train.py --config run.yaml
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $# -gt 0 ]] || die "usage: HOSTFILE=hosts.txt launchers/multi_node.sh --config FILE [--key value ...]"
hostfile="${HOSTFILE:-/job/hostfile}"
[[ -r "$hostfile" ]] || die "HOSTFILE=$hostfile cannot be read: give a file with lines like 'node1 slots=8'"
bad="$(grep -nvE '^[[:space:]]*(#.*)?$|^[[:space:]]*[^[:space:]#]+[[:space:]]+slots=[1-9][0-9]*[[:space:]]*(#.*)?$' "$hostfile" | head -n 1 || true)"
[[ -z "$bad" ]] || die "$hostfile line $bad: write 'node1 slots=8'"
node_launcher="${NODE_LAUNCHER:-pdsh}"
[[ "$node_launcher" != pdsh ]] || command -v pdsh >/dev/null ||
  die "pdsh is not installed: apt install pdsh, or set NODE_LAUNCHER=openmpi"

setup_environment deepspeed,wandb,gguf
cd "$REPO"

# deepspeed sets what this file names on every machine. It reads one NAME=value a line.
environment="$(mktemp)"
trap 'rm -f "$environment"' EXIT
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
while IFS= read -r name; do
  case "$name" in
    NCCL_* | FI_* | GLOO_* | TORCH_* | CUDA_* | OMP_* | HF_HOME | HF_HUB_* | HF_ENDPOINT) ;;
    SAFEMIX_* | WANDB_MODE | WANDB_PROJECT | WANDB_ENTITY | WANDB_BASE_URL) ;;
    TOKENIZERS_PARALLELISM | DS_ACCELERATOR) ;;
    *) [[ " ${PASS_ENV:-} " == *" $name "* ]] || continue ;;
  esac
  # Which GPUs a machine has is for its line in the hostfile to say.
  [[ "$name" != CUDA_VISIBLE_DEVICES && "${!name}" != *$'\n'* ]] || continue
  printf '%s=%s\n' "$name" "${!name}" >>"$environment"
done < <(compgen -e)

DS_ENV_FILE="$environment" deepspeed --hostfile "$hostfile" --launcher "$node_launcher" \
  ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} --master_port "${MASTER_PORT:-29500}" \
  "$REPO/launchers/train.py" "$@"
