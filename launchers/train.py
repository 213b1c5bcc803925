#!/usr/bin/env python3
"""Fine-tune with an exact share of safety rows in every optimizer step.

Start it with a launcher, one process a GPU (or two on a CPU):

    deepspeed --num_gpus 2 launchers/train.py --config run.yaml --ratio 0.05 --max_steps 40
    torchrun --nproc_per_node 2 launchers/train.py --config run.yaml
    accelerate launch --num_processes 2 launchers/train.py --config run.yaml

Any key of the settings can be given as `--key value`, inner keys with dots (`--lora.r 8`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("safemix") is None:
    # Not installed: take the package of the checkout that this file lies in.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safemix.training.main import main

if __name__ == "__main__":
    main()
