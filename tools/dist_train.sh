#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [options of train.py]; dist_test.sh calls it, too.
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT, as for MMPose's script. NODE_TIMEOUT is how many
# seconds they wait for one another. On one node, a free port is chosen unless PORT is set.
set -euo pipefail
tool=${HG_TOOL:-train} files=1 names=CONFIG
[ "$tool" = train ] || files=2 names='CONFIG CHECKPOINT'
if [ $# -le $files ]; then
    echo "usage: tools/dist_$tool.sh $names GPUS [options of tools/$tool.py]" >&2
    exit 2
fi
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="${@:files+1:1}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" ${PORT:+--master_port="$PORT"} \
    "$(dirname "$0")/$tool.py" "${@:1:files}" --launcher pytorch "${@:files+2}"
