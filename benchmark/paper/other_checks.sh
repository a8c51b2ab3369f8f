#!/usr/bin/env bash
# REINFORCE, A2C and TRPO with both heads and their defaults: 72 runs, about 40 minutes on two cores.
set -euo pipefail
. benchmark/paper/queue.sh
for seed in 1 2 3 4 5 6 7 8 9 10; do
  for script in a2c trpo reinforce; do
    for head in no-etf-head etf-head; do
      echo "runs/other_checks/$script/cartpole-$head-$seed ${script}_acpg.py --$head --seed $seed"
      if [ "$seed" -le 3 ] && [ "$script" != reinforce ]; then
        echo "runs/other_checks/$script/acrobot-$head-$seed ${script}_acpg.py --$head --seed $seed --env-id Acrobot-v1"
      fi
    done
  done
done | queue
for script in a2c trpo reinforce; do
  ${PYTHON:-python} -m benchmark.collate --runs runs/other_checks/$script --out benchmark/results/${script}_checks
done
