#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]; settings as of slurm_train.sh
HG_TOOL=test exec bash "$(dirname "$0")/slurm_train.sh" "$@"
