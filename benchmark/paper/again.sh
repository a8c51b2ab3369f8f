#!/usr/bin/env bash
# Question 3 of benchmark/results/README.md: the small table again, sampled and greedy. Four algorithms, four tasks, five arms,
# 20 seeds from 1001 on: 1,600 runs, on two cores 25 minutes of PPO and A2C, 55 of TRPO, 80 of REINFORCE.
# ALGORITHMS="ppo a2c" makes only these.
set -euo pipefail
. benchmark/paper/publish.sh
more=("$@")
again() { # STD STEPS ENVIRONMENT
  heads "${algorithm}_acpg.py" "$1"
  run --arms "${arms[@]}" --env-ids "$3" --total-timesteps "$2" --num-seeds 20 --start-seed 1001 \
    --seeds-per-process "$(seeds_per_process $algorithm)" --out "runs/again_$algorithm" "${more[@]}"
}
algorithms=$(parts ALGORITHMS ppo a2c trpo reinforce)
for algorithm in $algorithms; do
  on_small_tasks again
  publish "runs/again_$algorithm" "benchmark/results/again_$algorithm" "${more[@]}"
done
exit $code
