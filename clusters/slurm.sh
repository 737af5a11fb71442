#!/bin/bash
# A sweep on a Slurm cluster: Ray on every node of the job, the sweep on the first. From the checkout, on a disk that the
# nodes share (its .venv made by `make install` on a node):
#   sbatch --nodes=4 clusters/slurm.sh sweep.yaml --runs "$SCRATCH/runs"
# Repeat the same command when the time limit has ended the job: the sweep goes on where it was.
#   squeue --me; tail -f posesweep-<job>.log           watch it
#   scancel <job>                                      stop it: nothing is lost
#SBATCH --job-name=posesweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=posesweep-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is for sbatch}"

# Nobody without this job's token talks to its Ray; srun hands the environment to the nodes.
RAY_AUTH_TOKEN=$(.venv/bin/python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_address=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
dashboard=$((40000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$head_address:$port"
share=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# Ray's own files stay on the nodes' disks; a name of its own keeps apart two jobs of one user on a node.
srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap \
  env -u RAY_ADDRESS .venv/bin/ray start --head --block --node-ip-address="$head_address" --port="$port" \
  --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${share[@]}" &
sleep 20
if ((${#nodes[@]} > 1)); then
  others=$(IFS=,; echo "${nodes[*]:1}")
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --nodelist="$others" --overlap \
    .venv/bin/ray start --address="$RAY_ADDRESS" --block "${share[@]}" &
  sleep 20
fi

# On the head's node, and told to stop when the time is nearly over: running epochs are lost, nothing else.
srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap .venv/bin/python run_sweep.py "$@" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
status=0
wait "$sweep" || status=$?
if ((status > 128)) && kill -0 "$sweep" 2>/dev/null; then # the signal ended the waiting, not the sweep
  status=0
  wait "$sweep" || status=$?
fi
exit "$status"
