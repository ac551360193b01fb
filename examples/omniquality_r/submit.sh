#!/usr/bin/env bash
# Train on a running Ray cluster. Its nodes need the same versions of omniq_verl (pip install), and the data and model
# under the same paths on every node. The recipes travel with the job. Checkpoints are written to
# trainer.default_local_dir on the training nodes, so that must be a shared folder too.
#
#     examples/omniquality_r/submit.sh http://HEAD:8265 omniquality_r/stage1 \
#         data.train_files=/shared/data/train.parquet data.val_files=/shared/data/val.parquet \
#         actor_rollout_ref.model.path=/shared/runs/sft/global_step_100/huggingface trainer.default_local_dir=/shared/runs/stage1
#
# Set secrets such as WANDB_API_KEY or HF_TOKEN in the environment of the nodes: anyone with access to the cluster's
# dashboard can read what is passed to a job here.
#
# For a CPU cluster: VERL_PLATFORM=cpu examples/omniquality_r/submit.sh ... omniquality_r/cpu_tiny_stage1_job ..., with
# nodes started by `ray start --num-gpus 1 --num-cpus 16`, because verl requests CPUs as "GPUs".
set -euo pipefail
if [[ $# -lt 2 ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
fi
address=$1 recipe=$2
shift 2
recipes=$(cd "$(dirname "$0")/../../recipes" && pwd)
environment='{"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"'
if [[ ${VERL_PLATFORM:-} == cpu ]]; then
    environment+=', "VERL_PLATFORM": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"'
fi
exec ray job submit --address "$address" --working-dir "$recipes" --runtime-env-json "{\"env_vars\": $environment}}" -- \
    python -m verl.trainer.main_ppo --config-dir . --config-name "$recipe" "$@"
