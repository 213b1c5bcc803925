"""A run of our own: the Trainer, its checkpoints, models, DeepSpeed configs, memory."""
