#!/usr/bin/env bash
# Start a SLURM of one machine for tests/slurm, with two nodes of two fake GPUs; install it first where apt-get has it.
# Usage, as root: tests/slurm/up.sh [FOLDER], and later tests/slurm/down.sh [FOLDER]. It writes /etc/slurm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${TMPDIR:-/tmp}/dip-slurm}
packages=(slurmctld slurmd slurm-client munge)

if command -v sinfo >/dev/null && timeout 10 sinfo --noheader >/dev/null 2>&1; then
  echo "a SLURM is running already; leaving it as it is"
  exit 0
fi
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  # Packages must not start services by themselves: there may be no init, and the configuration is not there yet.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [[ -s /etc/slurm/slurm.conf ]] && ! grep -q '^ClusterName=dip$' /etc/slurm/slurm.conf; then
  echo "/etc/slurm/slurm.conf is of another cluster; leaving it as it is" >&2
  exit 1
fi

host=$(hostname -s)
mkdir -p "$folder"/{state,dev,spool-"$host",spool-"$host"-2} /etc/slurm /run/munge
chown munge: /run/munge
for i in 0 1; do
  # SLURM takes only character devices for GPUs; these are /dev/null.
  [[ -c $folder/dev/fakegpu$i ]] || mknod "$folder/dev/fakegpu$i" c 1 3
done
for name in slurm.conf gres.conf; do
  sed -e "s#@HOST@#$host#g; s#@DIR@#$folder#g; s#@CPUS@#${CPUS:-8}#; s#@MEM@#${MEM:-8000}#" \
    "$here/conf/$name" >/etc/slurm/$name
done
if [[ ! -s /etc/munge/munge.key ]]; then
  (umask 077 && head --bytes=128 /dev/urandom >/etc/munge/munge.key)
  chown munge: /etc/munge/munge.key
fi
munge --no-input >/dev/null 2>&1 || runuser --user munge -- munged
slurmctld
slurmd -N "$host"
slurmd -N "$host-2"
for _ in $(seq 100); do
  [[ $(sinfo --noheader --partition=two --format="%T %D" 2>/dev/null) == "idle 2" ]] && exec sinfo --format="%P %T %D %c %G"
  sleep 0.1
done
echo "SLURM did not come up; see $folder/slurmctld.log and slurmd-*.log there" >&2
exit 1
