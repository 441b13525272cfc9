#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]; slurm_test.sh calls it, too.
# Set GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS, as for MMPose's script. See docs/distributed.md.
set -euo pipefail
tool=${HG_TOOL:-train}
[ "$tool" = train ] && fourth=WORK_DIR || fourth=CHECKPOINT
if [ $# -lt 4 ]; then
    echo "usage: tools/slurm_$tool.sh PARTITION JOB_NAME CONFIG $fourth [options of tools/$tool.py]" >&2
    exit 2
fi
[ "$tool" = test ] || set -- "${@:1:3}" --work-dir "${@:4}"
gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}
# no more a node than there are, as Slurm refuses it
[ "$gpus_per_node" -le "$gpus" ] || gpus_per_node=$gpus
# SRUN_ARGS holds several words
exec srun --partition="$1" --job-name="$2" \
    --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" --gres="gpu:$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/$tool.py" --launcher slurm "${@:3}"
