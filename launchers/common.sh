# Shared by the launchers: a virtual environment with tested versions, and what the machine has.
# Sourced, not run. Variables a user may set:
#   PYTHON         the Python to make the environment with (3.11 or newer)
#   SAFEMIX_VENV   where the environment lies (default: .venv beside this folder)

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${SAFEMIX_VENV:-$ROOT/.venv}"
CONSTRAINTS="$ROOT/launchers/constraints.txt"
TORCH="$(grep '^torch==' "$CONSTRAINTS")"
CPU_INDEX="https://download.pytorch.org/whl/cpu"

say() { printf 'safemix: %s\n' "$*" >&2; }
die() { printf 'safemix: error: %s\n' "$*" >&2; exit 2; }

# Number of GPUs that the driver shows; 0 without one.
gpu_count() {
    local listed
    listed="$(nvidia-smi -L 2>/dev/null)" || { echo 0; return; }
    grep -c '^GPU ' <<<"$listed" || true
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found: install one, or set PYTHON=/path/to/python3"
}

# What the environment is made from; another value means that it is brought up to date.
wanted_stamp() {
    { cat "$CONSTRAINTS" "$ROOT/setup.cfg" "$ROOT/pyproject.toml"; echo "$1 $(gpu_kind) $ROOT"; } |
        sha256sum | cut -d' ' -f1
}

gpu_kind() { if [ "$(gpu_count)" -gt 0 ]; then echo gpu; else echo cpu; fi; }

# setup_environment EXTRAS: make or update $VENV and activate it. Quick when nothing has changed.
setup_environment() {
    local extras="$1" python stamp
    stamp="$(wanted_stamp "$extras")"
    if [ ! -x "$VENV/bin/python" ]; then
        python="$(find_python)"
        say "making $VENV with $python"
        "$python" -m venv "$VENV" ||
            die "$python cannot make a virtual environment: install its venv module (python3-venv)"
    fi
    # shellcheck disable=SC1091
    source "$VENV/bin/activate"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    if [ "$(cat "$VENV/safemix-$extras.stamp" 2>/dev/null)" != "$stamp" ]; then
        install_torch
        say "installing safemix and its tested packages (about a minute)"
        pip install -qq -c "$CONSTRAINTS" -e "$ROOT[$extras]" ||
            die "the packages cannot be installed; pip says why above"
        echo "$stamp" >"$VENV/safemix-$extras.stamp"
    fi
}

# The CUDA build where there is a GPU, else the CPU build: it is a tenth of the size.
install_torch() {
    if python -c 'import torch' 2>/dev/null; then return; fi
    local from=()
    if [ "$(gpu_kind)" = cpu ] && [ "$(uname -s)" = Linux ] && ! default_is_cpu; then
        if python -c "import urllib.request as u; u.urlopen('$CPU_INDEX/torch/', timeout=5)" \
            2>/dev/null; then
            from=(--index-url "$CPU_INDEX")
        else
            say "the index of CPU builds cannot be reached: taking the default build of torch"
        fi
    fi
    say "installing $TORCH ($(gpu_kind))"
    pip install -qq "$TORCH" "${from[@]}" || die "torch cannot be installed; pip says why above"
}

# Whether a plain install would take a CPU build already.
default_is_cpu() {
    pip install -qq --dry-run --no-deps --report - "$TORCH" 2>/dev/null | grep -q '"version": "[0-9.]*+cpu"'
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Processes to start on this machine: one per GPU, or two on a CPU.
processes() {
    local gpus
    gpus="$(gpu_count)"
    if [ "$gpus" -gt 0 ]; then echo "$gpus"; else echo 2; fi
}

# Environment of a CPU run: DeepSpeed's CPU backend, and the cores shared between the processes.
cpu_environment() {
    if [ "$(gpu_count)" -gt 0 ]; then return; fi
    local cores
    cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
    export DS_ACCELERATOR=cpu
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > 2 ? cores / 2 : 1))}"
}
