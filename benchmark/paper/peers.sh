#!/usr/bin/env bash
# Learning curves beside Stable-Baselines3's A2C (20 seeds) and sb3-contrib's TRPO (5) on CartPole-v1, 200k steps: 50 runs, about
# 15 minutes on two cores. What follows goes to benchmark.run. The peers have a virtual environment of their own, which
# `python -m benchmark.speed` makes, so they run here, WORKERS (2) at a time; a directory with a file "done" is skipped.
set -euo pipefail
. benchmark/paper/publish.sh
theirs() { # ALGORITHM SEEDS
  seq "$2" | xargs -P "${WORKERS:-2}" -I SEED sh -c 'test -e "$1/done" || {
    rm -rf "$1" && mkdir -p "$1" && .venv-peers/bin/python benchmark/speed/sb3.py "$0" --seed "$2" --total-timesteps 200000 \
      --runs-dir "$1" > "$1/log" 2>&1 && touch "$1/done"
  }' "$1" "runs/peers/$1/sb3-SEED" SEED
}
for peer in "a2c 20" "trpo 5"; do
  read -r algorithm seeds <<< "$peer"
  run --scripts ${algorithm}_acpg --heads linear --num-seeds "$seeds" --total-timesteps 200000 \
    --out "runs/peers/$algorithm/ours" "$@"
  is_dry "$@" || theirs "$algorithm" "$seeds"
  collate "runs/peers/$algorithm" "benchmark/results/peers_$algorithm" "$@"
done
exit $code
