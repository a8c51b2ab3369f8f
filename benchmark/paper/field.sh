#!/usr/bin/env bash
# Question 8 of benchmark/results/README.md: more of the field. PPO, five arms, 20 seeds from 1001 on, on five tasks: 500 runs,
# an hour on two cores; FOLDERS=field_more makes only MountainCar and Taxi, which came later, 36 minutes. With --minatar first,
# on MinAtar's five games, 1M steps and ten seeds: 250 runs, 18 hours of two cores.
set -euo pipefail
. benchmark/paper/publish.sh
field() { # STD STEPS ENVIRONMENT and what else benchmark.run takes
  heads ppo_acpg.py "$1"
  run --arms "${arms[@]}" --env-ids "$3" --total-timesteps "$2" --start-seed 1001 "${@:4}"
}
# The norms make the learned head's rows, less their mean, as long as the frame's: 2 sqrt(K / (K - 1)) for K actions.
if [ "${1-}" = --minatar ]; then
  shift
  layout="all --image-layout channels_first" # which Seaquest's shape, three times 10, does not tell
  alone=(--flags "$layout" --num-seeds 10 --out runs/field_minatar "$@")
  field 2.24 1000000 benchmark.envs:MinAtar/Asterix-v1 "${alone[@]}"
  field 2.45 1000000 benchmark.envs:MinAtar/Breakout-v1 "${alone[@]}"
  field 2.45 1000000 benchmark.envs:MinAtar/Freeway-v1 "${alone[@]}"
  field 2.19 1000000 benchmark.envs:MinAtar/Seaquest-v1 "${alone[@]}"
  field 2.31 1000000 benchmark.envs:MinAtar/SpaceInvaders-v1 "${alone[@]}"
  publish runs/field_minatar benchmark/results/field_minatar "$@"
  exit $code
fi
folders=$(parts FOLDERS field field_more)
for folder in $folders; do
  together=(--num-seeds 20 --seeds-per-process 20 --out "runs/$folder" "$@")
  case $folder in
    field)
      field 2.31 300000 benchmark.envs:envpool/LunarLander-v3 "${together[@]}"
      field 2.31 200000 benchmark.envs:CliffWalking200-v1 "${together[@]}"
      field 2.31 300000 benchmark.envs:envpool/FrozenLake8x8-v1 "${together[@]}"
      ;;
    field_more)
      field 2.45 200000 benchmark.envs:envpool/MountainCar-v0 "${together[@]}"
      field 2.19 200000 Taxi-v4 "${together[@]}"
      ;;
  esac
  publish "runs/$folder" "benchmark/results/$folder" "$@"
done
exit $code
