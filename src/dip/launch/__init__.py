"""Where a stage runs: in this process, in several of this machine, or as a SLURM job that outlives its launcher."""
