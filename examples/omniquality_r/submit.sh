#!/usr/bin/env bash
# Train on a Ray cluster that runs already. What has to be on its nodes: omniq_verl (pip install, same versions on all),
# and the data and model under the same paths, which every node must see. The recipes travel with the job; the
# checkpoints appear under trainer.default_local_dir on the nodes that train, so that has to be a shared folder too.
#
#     examples/omniquality_r/submit.sh http://HEAD:8265 omniquality_r/stage1 \
#         data.train_files=/shared/data/train.parquet data.val_files=/shared/data/val.parquet \
#         actor_rollout_ref.model.path=/shared/sft/huggingface trainer.default_local_dir=/shared/runs/stage1
#
# Keys, as WANDB_API_KEY or HF_TOKEN, belong into the environment of the nodes: what a job is given here can be read by
# everyone who sees the cluster's dashboard.
#
# For a CPU cluster: VERL_PLATFORM=cpu examples/omniquality_r/submit.sh ... omniquality_r/cpu_tiny_stage1_job ..., and its
# nodes started with `ray start --num-gpus 1 --num-cpus 16`: verl asks for "GPUs" by that name.
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
