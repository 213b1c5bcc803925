"""What is logged and how: `metrics.jsonl` always, W&B if wanted, curves and a summary."""
