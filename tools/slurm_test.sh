#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]
# Set GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS, as for MMPose's script. See docs/distributed.md.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi
gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}
# no more a node than there are, as Slurm refuses it
[ "$gpus_per_node" -le "$gpus" ] || gpus_per_node=$gpus
# SRUN_ARGS holds several words
exec srun --partition="$1" --job-name="$2" \
    --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" --gres="gpu:$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/test.py" "$3" "$4" --launcher slurm "${@:5}"
