#!/usr/bin/env bash
# Runs a command beside a SLURM of one node, this machine, and stops that SLURM afterwards. Debian: apt-get install slurm-wlm munge
# All of it lies in one folder and runs as the user who starts it: no systemd, no cgroups, no accounting, nothing below /etc.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: workflow/cluster/one_node.sh COMMAND..." >&2; exit 2; }
PATH="$PATH:/usr/sbin"
command -v munged slurmctld slurmd sbatch >/dev/null || { echo "error: needs SLURM and MUNGE: apt-get install slurm-wlm munge" >&2; exit 1; }

folder="$(mktemp -d)"
chmod 755 "$folder" # munged wants its socket to be within everyone's reach
pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap stop EXIT

install -d -m 700 "$folder/private"
head -c 1024 /dev/urandom >"$folder/private/key"
chmod 400 "$folder/private/key"
munged --foreground --socket="$folder/munge" --key-file="$folder/private/key" --pid-file="$folder/private/pid" \
  --seed-file="$folder/private/seed" --log-file="$folder/private/log" 2>>"$folder/daemons" &
pids+=($!)

export SLURM_CONF="$folder/slurm.conf"
# `slurmd -C` says what this machine has: its name, processors and memory.
cat >"$SLURM_CONF" <<TEXT
ClusterName=one_node
SlurmctldHost=$(hostname -s)(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$folder/munge
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=86400
ReturnToService=2
$(SLURM_CONF=/dev/null slurmd -C | grep ^NodeName) NodeAddr=127.0.0.1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
TEXT
mkdir "$folder/state" "$folder/spool" "$folder/bin"
# Snakemake's plugin starts srun without the variables of SLURM, so without SLURM_CONF.
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$folder/bin/srun"
chmod +x "$folder/bin/srun"
export PATH="$folder/bin:$PATH"
slurmctld -D 2>>"$folder/daemons" &
pids+=($!)
slurmd -D 2>>"$folder/daemons" &
pids+=($!)
for _ in {1..60}; do
  sinfo --noheader --format=%T 2>/dev/null | grep -qx idle && ready=yes && break
  sleep 1
done
[ "${ready:-}" ] || { cat "$folder/daemons" >&2; echo "error: SLURM did not start" >&2; exit 1; }
"$@"
