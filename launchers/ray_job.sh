#!/usr/bin/env bash
# A sweep as a job on a Ray cluster that is up already: `safemix tune`, run on its head node.
# Checked: arguments, and a cluster of one machine; not run on a cluster of several.
#
#   ./launchers/ray_job.sh --config launchers/configs/sweep.yaml --set output_dir=/shared/sweep
#   ./launchers/ray_job.sh --resume /shared/sweep              # goes on with it
#   RAY_API_SERVER_ADDRESS=http://head:8265 ./launchers/ray_job.sh --config sweep.yaml
#
# Arguments are those of `safemix tune`; the address is set here. The exit code is that of the
# sweep (3: no ratio is within the bounds); Ray's own knows 0 and 1 alone. Ctrl-C here leaves the
# job running: `ray job stop ID` ends it, with a report of what is there.
#
# Needed: the sweep's file, its data and its output_dir at the same paths on all nodes (a shared
# file system), and safemix[ray,deepspeed] in the Python that Ray was started with on each of them
# (`source .venv/bin/activate`, then `ray start`). Here, and on the head node: ray[default], of the
# same version as the cluster's: pip install -c launchers/constraints.txt 'ray[default]'.
# Nothing is uploaded. Keys are not passed: Ray shows a job's environment on its dashboard. Start
# Ray on the nodes with WANDB_API_KEY and HF_TOKEN in their environment.
#
# Variables:
#   RAY_API_SERVER_ADDRESS  the cluster's dashboard (default: http://127.0.0.1:8265)
#   RAY_AUTH_TOKEN_PATH     a file with the cluster's token, where it asks for one
#   JOB_DIR       folder on the cluster that relative paths start from (default: the one you are in)
#   JOB_SAFEMIX   safemix on the cluster (default: bin/safemix of SAFEMIX_VENV)
#   JOB_ID        name of the job (default: safemix-, and the time)
#   JOB_WAIT      0: come back as soon as the job is submitted
#   SAFEMIX_VENV  the environment (default: .venv in the repository)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $# -gt 0 ]] ||
  die "usage: launchers/ray_job.sh --config FILE [--set KEY=VALUE ...], or --resume DIR"
python="$VENV/bin/python"
"$python" -c 'import aiohttp, ray' 2>/dev/null ||
  die "no ray[default] in $VENV: install it there, or set SAFEMIX_VENV to an environment that has it"

export RAY_API_SERVER_ADDRESS="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"
job="${JOB_ID:-safemix-$(date +%Y%m%d-%H%M%S)}"
[[ "$job" =~ ^[A-Za-z0-9._-]+$ ]] || die "JOB_ID=$job: give letters, digits, dots, dashes and underscores"
wait=()
[[ "${JOB_WAIT:-1}" != 0 ]] || wait=(--no-wait)
# What `ray job stop` does: Ctrl-C, with time to write the report. These are no secrets.
environment='{"env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}}'

code=0
"$python" -m ray.scripts.scripts job submit --submission-id "$job" "${wait[@]}" \
  --runtime-env-json "$environment" -- \
  env --chdir="${JOB_DIR:-$PWD}" "${JOB_SAFEMIX:-$VENV/bin/safemix}" tune "$@" \
  --set address=auto || code=$?
[[ "$code" != 0 ]] || exit 0

# Ray says 1 for every end but a good one: ask for the sweep's own.
exec "$python" - "$job" "$code" <<'PYTHON'
import sys

from ray.job_submission import JobSubmissionClient

job, code = sys.argv[1], int(sys.argv[2])
try:
    ended = JobSubmissionClient().get_job_info(job).driver_exit_code
except Exception as error:  # no cluster, or no such job
    reason = " ".join(str(error).split())
    sys.exit(f"safemix: error: the cluster does not say how job {job} ended: {reason}")
sys.exit(code if ended is None else ended)
PYTHON
