#!/usr/bin/env bash
# A SLURM cluster of this one machine, with no systemd: munged, slurmctld and slurmd, as root, with all that is theirs in the directory $1, on the ports $2 and $2 + 1.
# Their process ids are in $1/*.pid.
set -euo pipefail
dir=$(realpath "$1") port=$2
mkdir -p "$dir"/{state,spool}
chmod 755 "$dir"
(umask 077; head -c 1024 /dev/urandom > "$dir/munge.key")
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
cat > "$dir/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=localhost
SlurmUser=root
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthInfo=socket=$dir/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ReturnToService=2
# The node is called what JAX can look up: the first task's node is where its processes meet.
NodeName=localhost NodeHostname=$(hostname) NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=debug Nodes=localhost Default=YES OverSubscribe=FORCE
CONF
export SLURM_CONF=$dir/slurm.conf
slurmctld -c
slurmd -N localhost
for _ in $(seq 120); do
  [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && exit
  sleep 0.5
done
echo "no node became idle: see $dir/*.log" >&2
exit 1
