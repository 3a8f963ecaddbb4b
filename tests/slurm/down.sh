#!/usr/bin/env bash
# Stop the SLURM that tests/slurm/up.sh started, and its jobs. Usage: tests/slurm/down.sh [FOLDER]
set -euo pipefail
folder=${1:-${TMPDIR:-/tmp}/dip-slurm}

running() {
  [[ -s $folder/$1.pid ]] && kill -0 "$(<"$folder/$1.pid")" 2>/dev/null
}

if running slurmctld; then
  timeout 10 scancel --quiet --partition=gpu || true
fi
for name in slurmd slurmctld; do
  if running "$name"; then
    kill "$(<"$folder/$name.pid")"
  fi
done
for _ in $(seq 100); do
  running slurmd || running slurmctld || exit 0
  sleep 0.1
done
echo "SLURM is still running; see $folder" >&2
exit 1
