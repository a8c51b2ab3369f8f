#!/usr/bin/env bash
# Question 4 of benchmark/results/README.md: longer. Four algorithms on CartPole and Acrobot, 500k steps, three arms, 20 seeds
# from 1001 on: 480 runs, on two cores 25 minutes of PPO and A2C, 55 of TRPO, 55 of REINFORCE.
# ALGORITHMS="ppo a2c" makes only these.
set -euo pipefail
. benchmark/paper/publish.sh
more=("$@")
longer() { # STD ENVIRONMENT
  heads "${algorithm}_acpg.py" "$1"
  run --arms "${arms[@]:0:3}" --env-ids "$2" --total-timesteps 500000 --num-seeds 20 --start-seed 1001 \
    --seeds-per-process "$(seeds_per_process $algorithm)" --out "runs/longer_$algorithm" "${more[@]}"
}
algorithms=$(parts ALGORITHMS ppo a2c trpo reinforce)
for algorithm in $algorithms; do
  longer 2.83 CartPole-v1
  longer 2.45 benchmark.envs:envpool/Acrobot-v1
  publish "runs/longer_$algorithm" "benchmark/results/longer_$algorithm" "${more[@]}"
done
exit $code
