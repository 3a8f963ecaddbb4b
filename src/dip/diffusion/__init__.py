"""Flow matching: path, objective, guidance and solver."""
