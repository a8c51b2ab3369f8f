#!/usr/bin/env bash
# Question 2 of benchmark/results/README.md: geometry where it can differ. PPO with all heads and --feature-dim K - 1, K, 2K
# and 64, 20 seeds from 1001 on: 1,800 runs, about 25 minutes on two cores. Orthogonal rows need d >= K.
set -euo pipefail
. benchmark/paper/publish.sh
near() { # ENVIRONMENT K NORM STEPS: each width of the actor's last layer is an experiment of its own
  local env_id=$1 actions=$2 norm=$3 steps=$4
  for width in $((actions - 1)) $actions $((2 * actions)) 64; do
    heads="linear linear:$norm etf etf-trainable random random-trainable"
    if [ $width -ge $actions ]; then heads="$heads orthogonal orthogonal-trainable"; fi
    run --scripts ppo_acpg --env-ids $env_id --heads $heads --num-seeds 20 --start-seed 1001 \
      --seeds-per-process 20 --total-timesteps $steps --flags "all --feature-dim $width" --out "$out/d-$width" "${more[@]}"
  done
}
more=("$@")
for task in ideal lake many; do
  out=runs/near_k/$task
  case $task in
    ideal) near benchmark.envs:IdealCliffWalking-v0 4 2.31 50000 ;;
    lake) near FrozenLake-v1 4 2.31 100000 ;;
    many) near benchmark.envs:ManyActions18-v0 18 2.06 40000 ;;
  esac
  publish $out benchmark/results/near_k_$task "$@"
done
exit $code
