#!/usr/bin/env bash
# PPO with both heads on the tasks that every implementation must solve: 32 runs, about 25 minutes on two cores. What follows goes
# to benchmark.run.
set -euo pipefail
. benchmark/paper/publish.sh
lander="--num-envs 16 --num-minibatches 32 --gamma 0.999 --gae-lambda 0.98 --learning-rate 5e-4 --no-clip-vloss"
checks() { run --total-timesteps 500000 --out runs/ppo_checks "$@"; }
checks --env-ids CartPole-v1 --num-seeds 10 "$@"
checks --env-ids Acrobot-v1 LunarLander-v3 --num-seeds 3 --flags "all@LunarLander-v3 $lander --total-timesteps 1000000" "$@"
collate runs/ppo_checks benchmark/results/ppo_checks "$@"
figure benchmark/results/ppo_checks "$@"
exit $code
