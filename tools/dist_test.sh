#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT, as for MMPose's script. NODE_TIMEOUT is how many
# seconds they wait for one another. On one node, a free port is chosen unless PORT is set.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" ${PORT:+--master_port="$PORT"} \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
