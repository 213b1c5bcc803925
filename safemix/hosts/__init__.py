"""One small file per host, and what they share: guard, diagnosis, loss per source, resume."""
