#!/usr/bin/env bash
# Question 5 of benchmark/results/README.md: is it that actor and critic share one clipped norm? PPO as clipped_apart.patch changes
# it, which clips their gradients apart, each at the norm both had together; three heads, the small table's tasks, 20 seeds from
# 1001 on. The same seeds of the script itself are question 3's. 240 runs, one seed a process, 40 minutes on two cores.
set -euo pipefail
. benchmark/paper/publish.sh
more=("$@")
script=runs/clipped_apart/ppo_clipped_apart.py
mkdir -p runs/clipped_apart
patch --silent --output=$script ppo_acpg.py benchmark/paper/clipped_apart.patch
export PYTHONPATH=.:${PYTHONPATH-} # where the patched script, in its folder, finds benchmark.envs
apart() { # STD STEPS ENVIRONMENT
  heads $script "$1"
  run --arms "${arms[@]:0:3}" --env-ids "$3" --total-timesteps "$2" --num-seeds 20 --start-seed 1001 --out runs/clipped_apart "${more[@]}"
}
on_small_tasks apart
publish runs/clipped_apart benchmark/results/clipped_apart "${more[@]}"
exit $code
