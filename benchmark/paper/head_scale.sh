#!/usr/bin/env bash
# Which norm of its rows should each head start from? Three tasks, four seeds, 300k steps: 104 runs, about 40 minutes on
# two cores. The hyper-parameters are ones with which the tasks are learned at all in 300k steps, the same for both heads.
set -euo pipefail
. benchmark/paper/queue.sh
lander="--env-id LunarLander-v3 --num-envs 16 --num-minibatches 32 --gamma 0.999 --gae-lambda 0.98 --learning-rate 5e-4"
asterix="--env-id benchmark.envs:MinAtar/Asterix-v1 --num-envs 16 --num-minibatches 8 --learning-rate 1e-3"
taxi="--env-id Taxi-v4 --num-envs 16 --num-minibatches 8 --learning-rate 2.5e-3 --ent-coef 0.05"
for seed in 101 102 103 104; do
  common="--seed $seed --total-timesteps 300000"
  for task in lander asterix taxi; do
    for scale in 1 2 4 8; do echo "runs/head_scale/$task-etf-$scale-$seed ppo_acpg.py ${!task} $common --etf-head --etf-scale $scale"; done
    for std in 0.01 0.1 1 2; do echo "runs/head_scale/$task-std-$std-$seed ppo_acpg.py ${!task} $common --head-std $std"; done
  done
  for last in relu linear; do echo "runs/head_scale/asterix-$last-$seed ppo_acpg.py $asterix $common --feature-activation $last"; done
done | queue
${PYTHON:-python} -m benchmark.collate --runs runs/head_scale --out benchmark/results/head_scale
