#!/usr/bin/env bash
# Question 10 of benchmark/results/README.md: beside other methods. DQN and discrete SAC of Tianshou, which needs
# `pip install tianshou==2.0.1`, with the hyper-parameters of its examples, on the four small tasks of again.sh, whose runs stand
# in benchmark/results/again_*. Ten seeds from 1001 on: 80 runs, 11M steps in all, 80 minutes on two cores.
set -euo pipefail
. benchmark/paper/publish.sh
more=("$@")
off_policy() { # STD, which only heads have, STEPS ENVIRONMENT
  run --arms "dqn=benchmark/paper/off_policy.py --algorithm dqn" "sac=benchmark/paper/off_policy.py --algorithm sac" \
    --env-ids "$3" --total-timesteps "$2" --num-seeds 10 --start-seed 1001 --out runs/off_policy "${more[@]}"
}
on_small_tasks off_policy
publish runs/off_policy benchmark/results/off_policy "${more[@]}"
exit $code
