"""Training: loop, EMA, checkpoints and the launcher."""
