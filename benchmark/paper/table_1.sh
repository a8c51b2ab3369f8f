#!/usr/bin/env bash
# The paper's table: both heads, algorithms and tasks as there, both backbones where tasks show images, 20 seeds: 640 runs, 400
# of them Atari of 10M steps, for a cluster. What follows goes to benchmark.run:
#     bash benchmark/paper/table_1.sh --cluster slurm --workers 100 --time 1440 --cpus 2
# With --small first, what two cores can do in 100 minutes: 4 algorithms on 4 tasks, 10 seeds, both heads, 320 runs; and, as the
# frame's norm alone makes the first policy more decided than the learned head's, the frame as a mere start, and the learned
# head that starts with rows of norm 2, each 160 runs more.
set -euo pipefail
. benchmark/paper/publish.sh
if [ "${1-}" = --small ]; then
  shift
  scripts="reinforce_acpg a2c_acpg ppo_acpg trpo_acpg"
  small() {
    run --out runs/table_1_small --scripts $scripts --heads linear etf etf-trainable --num-seeds 10 --start-seed 201 "$@"
    run --out runs/table_1_std_2 --scripts $scripts --heads linear:2 --num-seeds 10 --start-seed 201 "$@"
  }
  small --env-ids CartPole-v1 benchmark.envs:envpool/Acrobot-v1 --total-timesteps 200000 "$@"
  small --env-ids FrozenLake-v1 --total-timesteps 100000 "$@"
  small --env-ids benchmark.envs:IdealCliffWalking-v0 --total-timesteps 50000 "$@"
  publish runs/table_1_small benchmark/results/table_1_small "$@"
  tables runs/table_1_std_2 benchmark/results/table_1_std_2 "$@"
  exit $code
fi
atari="benchmark.envs:Atari/Enduro-v5 benchmark.envs:Atari/Qbert-v5"
racing=benchmark.envs:DiscreteCarRacing-v0
bounded="--feature-activation linear --feature-norm 4" # tanh saturates on CarRacing (docs/scripts.md)
for backbone in mlp cnn; do
  run --out "runs/table_1/$backbone" --scripts reinforce_acpg a2c_acpg --env-ids $racing --total-timesteps 2000000 \
    --num-seeds 20 --flags "all --backbone $backbone $bounded" "$@"
  paper() { run --out "runs/table_1/$backbone" --num-seeds 20 --flags "all --backbone $backbone" "$@"; }
  paper --scripts ppo_acpg --env-ids $atari benchmark.envs:Atari/Pong-v5 --total-timesteps 10000000 "$@"
  paper --scripts trpo_acpg --env-ids $atari --total-timesteps 10000000 "$@"
done
run --out runs/table_1/mlp --scripts reinforce_acpg a2c_acpg --env-ids CartPole-v1 --num-seeds 20 --total-timesteps 500000 "$@"
exit $code
