# shellcheck shell=bash
# Shared by the scripts beside this file; not run by itself. Needs bash and coreutils.
#
# Variables that a user may set:
#   PYTHON          the Python to make the environment with (3.11 or newer)
#   SAFEMIX_VENV    where the environment lies (default: .venv in the repository)
#   DEVICE          cpu: leave the GPUs alone
#   NUM_PROCESSES   processes on this machine (default: one per GPU, 2 on a CPU)
#   LAUNCHER        deepspeed (default), torchrun or accelerate
#   MASTER_PORT     port of the process group (default: a free one)

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${SAFEMIX_VENV:-$REPO/.venv}"
CONSTRAINTS="$REPO/launchers/constraints.txt"
TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"

say() { printf 'safemix: %s\n' "$*" >&2; }
die() {
  printf 'safemix: error: %s\n' "$*" >&2
  exit 2
}

# ---- what this machine is ---------------------------------------------------------------------

# The GPUs that may be used, one a line: their numbers, or what CUDA_VISIBLE_DEVICES names.
list_gpus() {
  [[ "${DEVICE:-}" != cpu ]] || return 0
  command -v nvidia-smi >/dev/null || return 0
  local found
  found="$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)" || return 0
  if [[ -n "${CUDA_VISIBLE_DEVICES+set}" ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | tr -d ' ' | sed '/^$/d; /^-1$/d'
  else
    printf '%s\n' "$found" | sed '/^$/d'
  fi
}

count_gpus() { list_gpus | wc -l | tr -d ' '; }

# ---- the environment --------------------------------------------------------------------------

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  if [[ -n "${PYTHON:-}" ]]; then
    command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not a program: give Python 3.11 or newer"
    is_new_enough "$PYTHON" ||
      die "PYTHON=$PYTHON is $("$PYTHON" -V 2>&1 || true): give Python 3.11 or newer"
    printf '%s\n' "$PYTHON"
    return
  fi
  local name
  for name in python3 python3.11 python3.12 python3.13 python; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      printf '%s\n' "$name"
      return
    fi
  done
  die "no Python 3.11 or newer found ($(python3 -V 2>&1 || true)): install one, or set PYTHON to it"
}

make_venv() {
  local python
  python="$(find_python)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python has no venv module: on Debian and Ubuntu, apt install python3-venv"
  say "making the environment $VENV with $("$python" -V)"
  "$python" -m venv "$VENV" >&2 || die "cannot make $VENV: remove it, or set SAFEMIX_VENV to another folder"
}

# What an installation depends on: the files that name versions, the Python, the device.
fingerprint() {
  local device="cpu"
  [[ "$(count_gpus)" == 0 ]] || device="gpu"
  { cat "$CONSTRAINTS" "$REPO/setup.cfg" "$REPO/pyproject.toml" "${BASH_SOURCE[0]}"
    "$VENV/bin/python" -V
    echo "$REPO $device"; } | sha256sum | cut -d' ' -f1
}

# Whether the stamp tells of this fingerprint ($1) and of every extra in $2 (a,b,c).
is_installed() {
  local stamp="$VENV/.safemix-stamp" mark installed extra
  [[ -f "$stamp" ]] || return 1
  { read -r mark && read -r installed; } <"$stamp" || return 1
  [[ "$mark" == "$1" ]] || return 1
  for extra in ${2//,/ }; do
    [[ ",$installed," == *",$extra,"* ]] || return 1
  done
}

quiet_pip() {
  "$VENV/bin/python" -m pip --disable-pip-version-check -qq "$@"
}

# Options that make pip take torch's CPU build, where that differs from what it would take anyway.
# PyPI has the CUDA build for Linux on x86, gigabytes that a CPU has no use for. If PyTorch's own
# index cannot be reached, that build is taken all the same: it runs on a CPU too.
torch_options() {
  [[ "$(count_gpus)" == 0 && "$(uname -sm)" == "Linux x86_64" ]] || return 0
  if quiet_pip install --dry-run --ignore-installed --no-deps --report - -c "$CONSTRAINTS" torch \
    2>/dev/null | grep -E '"url".*/torch-[^"]*(\+|%2B)cpu' >/dev/null; then
    return 0
  fi
  local probe="import urllib.request as r; r.urlopen('$TORCH_CPU_INDEX/torch/', timeout=10).read(1)"
  if "$VENV/bin/python" -c "$probe" 2>/dev/null; then
    printf '%s\n' --extra-index-url "$TORCH_CPU_INDEX"
  else
    say "the index of torch's CPU builds cannot be reached: taking the larger build with CUDA"
  fi
}

# setup_environment EXTRAS: the environment with safemix[EXTRAS], then first on the PATH. A second
# call with the same files returns at once.
setup_environment() {
  local extras="$1" mark
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then make_venv; fi
  is_new_enough "$VENV/bin/python" ||
    die "$VENV has $("$VENV/bin/python" -V): remove it, or set SAFEMIX_VENV to another folder"
  mark="$(fingerprint)"
  if ! is_installed "$mark" "$extras"; then
    (
      # Two scripts started together must not install into one folder at once.
      if command -v flock >/dev/null; then flock 9; fi
      is_installed "$mark" "$extras" || install_packages "$mark" "$extras"
    ) 9>"$VENV/.safemix-lock"
  fi
  export PATH="$VENV/bin:$PATH" VIRTUAL_ENV="$VENV"
  unset PYTHONHOME
}

install_packages() {
  local mark="$1" extras="$2" begun=$SECONDS
  local -a options
  rm -f "$VENV/.safemix-stamp"
  say "installing torch (1 of 2)"
  mapfile -t options < <(torch_options)
  quiet_pip install --progress-bar off -c "$CONSTRAINTS" "${options[@]}" torch >&2 ||
    die "pip cannot install torch: see its messages above, then run this again"
  say "installing safemix[$extras] and what it needs (2 of 2)"
  quiet_pip install --progress-bar off -c "$CONSTRAINTS" -e "${REPO}[$extras]" >&2 ||
    die "pip cannot install safemix[$extras]: see its messages above, then run this again"
  if [[ "$(count_gpus)" != 0 ]]; then
    "$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
      die "torch cannot use the GPUs of this machine (is the NVIDIA driver too old for it?): update the driver, or set DEVICE=cpu"
  fi
  printf '%s\n%s\n' "$mark" "$extras" >"$VENV/.safemix-stamp"
  say "installed in $((SECONDS - begun)) s"
}

# ---- starting a job on this machine -----------------------------------------------------------

# How many processes a job gets here.
default_processes() {
  local gpus
  gpus="$(count_gpus)"
  if [[ -n "${NUM_PROCESSES:-}" ]]; then
    [[ "$NUM_PROCESSES" =~ ^[1-9][0-9]*$ ]] || die "NUM_PROCESSES=$NUM_PROCESSES: give a number from 1"
    [[ "$gpus" == 0 || "$NUM_PROCESSES" -le "$gpus" ]] ||
      die "NUM_PROCESSES=$NUM_PROCESSES, but there are $gpus GPUs: give at most that, or DEVICE=cpu"
    printf '%s\n' "$NUM_PROCESSES"
  elif [[ "$gpus" == 0 ]]; then
    echo 2
  else
    printf '%s\n' "$gpus"
  fi
}

free_port() {
  "$VENV/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

# Settings of the processes' environment. On a CPU the cores are shared out among them.
prepare_processes() {
  local processes="$1" cores
  export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
  if [[ "$(count_gpus)" == 0 ]]; then
    cores="$(nproc)"
    export DS_ACCELERATOR=cpu CUDA_VISIBLE_DEVICES=""
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}"
  else
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  fi
}

# start_job PROCESSES ARGUMENTS...: replaces this shell by the launcher of launchers/train.py.
start_job() {
  local processes="$1" port
  shift
  port="${MASTER_PORT:-$(free_port)}"
  local -a where=(--num_gpus "$processes")
  if [[ -n "${CUDA_VISIBLE_DEVICES:-}" && "${DEVICE:-}" != cpu ]]; then
    # Given a number, deepspeed would forget which GPUs it may use.
    local -a gpus
    mapfile -t gpus < <(list_gpus)
    where=(--include "localhost:$(IFS=,; echo "${gpus[*]:0:processes}")")
  fi
  prepare_processes "$processes"
  case "${LAUNCHER:-deepspeed}" in
    deepspeed)
      exec deepspeed --log_level error "${where[@]}" --master_port "$port" \
        "$REPO/launchers/train.py" "$@"
      ;;
    torchrun)
      exec torchrun --nproc_per_node "$processes" --master_port "$port" \
        "$REPO/launchers/train.py" "$@"
      ;;
    accelerate)
      # Precision, batch sizes and DeepSpeed come from the settings: it only starts processes.
      # --multi_gpu is its word for several processes, on a CPU too. Not --cpu: that starts one
      # process and makes it leave DeepSpeed out.
      local -a kind=(--num_cpu_threads_per_process "$OMP_NUM_THREADS")
      if ((processes > 1)); then kind+=(--multi_gpu); fi
      exec accelerate launch --num_processes "$processes" --num_machines 1 --mixed_precision no \
        --dynamo_backend no --main_process_port "$port" "${kind[@]}" \
        "$REPO/launchers/train.py" "$@"
      ;;
    *) die "LAUNCHER=$LAUNCHER: give deepspeed, torchrun or accelerate" ;;
  esac
}
