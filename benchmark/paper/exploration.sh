#!/usr/bin/env bash
# The paper's exploration ablation: PPO on Pong, epsilon-greedy with five epsilons, 20 seeds: 200 runs of 10M steps, for a cluster
# (what follows goes to benchmark.run). With --small first, on MinAtar Breakout, 3 seeds, 200k steps: 30 runs, 20 minutes on
# two cores.
set -euo pipefail
code=0 # 1 if a run failed; the others go on
for epsilon in 0 0.001 0.01 0.1 1; do
  run="${PYTHON:-python} -m benchmark.run --scripts ppo_acpg"
  if [ "${1-}" = --small ]; then
    run="$run --env-ids benchmark.envs:MinAtar/Breakout-v1 --num-seeds 3 --start-seed 201 --total-timesteps 200000"
    $run --flags "all --epsilon $epsilon" --out "runs/exploration_small/$epsilon" "${@:2}" || code=$?
  else
    run="$run --env-ids benchmark.envs:Atari/Pong-v5 --num-seeds 20 --total-timesteps 10000000"
    $run --flags "all --epsilon $epsilon" --out "runs/exploration/$epsilon" "$@" || code=$?
  fi
done
exit $code
