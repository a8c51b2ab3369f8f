#!/usr/bin/env bash
# Added to question 8 of benchmark/results/README.md: how do greedy episodes on LunarLander end? field.sh's runs on it once more,
# 100 runs, 10 minutes on two cores, of which greedy.csv keeps arm, seed, return and length of every greedy episode.
set -euo pipefail
. benchmark/paper/publish.sh
heads ppo_acpg.py 2.31
run --arms "${arms[@]}" --env-ids benchmark.envs:envpool/LunarLander-v3 --total-timesteps 300000 --start-seed 1001 \
  --num-seeds 20 --seeds-per-process 20 --out runs/lander "$@"
is_dry "$@" && exit $code
tables runs/lander benchmark/results/lander
echo arm,seed,return,length > benchmark/results/lander/greedy.csv
for file in runs/lander/runs/*/*/evaluation.csv; do
  name=${file#runs/lander/runs/} # ENVIRONMENT__arms__ARM__SEED/...
  IFS=_ read -r arm _ seed <<< "$(sed 's|.*__arms__||; s|/.*||' <<< "$name")"
  # arm and seed instead of the step, which is the last of every run
  tail -n +2 "$file" | sed "s/^[^,]*/$arm,$seed/" >> benchmark/results/lander/greedy.csv
done
exit $code
