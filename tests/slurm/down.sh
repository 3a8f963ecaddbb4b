#!/usr/bin/env bash
# Stop the SLURM that tests/slurm/up.sh started, and its jobs. Usage: tests/slurm/down.sh [FOLDER]
set -euo pipefail
folder=${1:-${TMPDIR:-/tmp}/dip-slurm}

running() {
  [[ -s $1 ]] && kill -0 "$(<"$1")" 2>/dev/null
}

if running "$folder/slurmctld.pid"; then
  for partition in gpu two; do
    timeout 10 scancel --quiet --partition="$partition" || true
  done
fi
for file in "$folder"/slurmd-*.pid "$folder/slurmctld.pid"; do
  if running "$file"; then
    kill "$(<"$file")"
  fi
done
for _ in $(seq 100); do
  alive=
  for file in "$folder"/*.pid; do
    if running "$file"; then alive=yes; fi
  done
  [[ $alive ]] || exit 0
  sleep 0.1
done
echo "SLURM is still running; see $folder" >&2
exit 1
