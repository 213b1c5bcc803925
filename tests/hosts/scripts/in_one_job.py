"""Runs several scripts one after another in one launched job, which saves starting Python.

Each argument is a folder, a script and the script's own arguments: "ddp/ddp_after.py --x 1". The
scripts share one process group: torchrun's store serves no second one.
"""

import os
import runpy
import shlex
import sys
from pathlib import Path

import torch.distributed as dist


def share_one_group():
    begin, end = dist.init_process_group, dist.destroy_process_group
    dist.init_process_group = lambda *a, **k: None if dist.is_initialized() else begin(*a, **k)
    dist.destroy_process_group = lambda *a, **k: None
    return end


def main():
    scripts, base = Path(__file__).parent, Path.cwd()
    end = share_one_group()
    jobs = [arg for arg in sys.argv[1:] if not arg.startswith("--local_rank")]
    for job in jobs:
        where, *args = shlex.split(job)
        os.chdir(base / Path(where).parent)
        sys.argv = [where, *args]
        runpy.run_path(str(scripts / Path(where).name), run_name="__main__")
    if dist.is_initialized():
        end()
    # Several frameworks' threads in one process: at the interpreter's end one of torch's own was
    # seen to abort it (SIGABRT) after all work was done. What the scripts raise ends it before.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
