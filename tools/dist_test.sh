#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]; settings as of dist_train.sh
HG_TOOL=test exec bash "$(dirname "$0")/dist_train.sh" "$@"
