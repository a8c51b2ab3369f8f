#!/usr/bin/env bash
# PPO with both heads on the tasks that every implementation must solve: 32 runs, about 25 minutes on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
lander="--env-id LunarLander-v3 --num-envs 16 --num-minibatches 32 --gamma 0.999 --gae-lambda 0.98 --learning-rate 5e-4 --no-clip-vloss"
for seed in 1 2 3 4 5 6 7 8 9 10; do
  for head in no-etf-head etf-head; do
    if [ "$seed" -le 3 ]; then
      echo "runs/ppo_checks/lander-$head-$seed ppo_acpg.py --$head --seed $seed $lander --total-timesteps 1000000"
      echo "runs/ppo_checks/acrobot-$head-$seed ppo_acpg.py --$head --seed $seed --env-id Acrobot-v1"
    fi
    echo "runs/ppo_checks/cartpole-$head-$seed ppo_acpg.py --$head --seed $seed"
  done
done | queue
${PYTHON:-python} -m benchmark.collate --runs runs/ppo_checks --out benchmark/results/ppo_checks
${PYTHON:-python} -m benchmark.readme.figure --curves benchmark/results/ppo_checks/curves.csv --out benchmark/results/ppo_checks/curves.png
