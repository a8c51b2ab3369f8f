"""The layer-peeled model against its theorem, and the minority collapse of a learned head."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmark.layer_peeled import (
    Args,
    main,
    project,
    simplex_etf,
    smallest_minority_angle,
    solve_frozen,
    solve_learned,
    state_labels,
    theorem_error,
)

ARGS = Args(out=Path("unused"))


@pytest.mark.parametrize("num_actions", [2, 3, 8])
@pytest.mark.parametrize("ratio", [1, 10])
def test_the_frozen_head_meets_the_theorem(num_actions, ratio):
    assert theorem_error(num_actions, ratio, ARGS) < 1e-5


def test_frozen_activations_are_a_minimum():
    """No random direction within the ball lowers the loss of any state."""
    generator, labels = torch.Generator().manual_seed(1), state_labels(4, 3)
    weight = 1.5 * simplex_etf(4)
    h = solve_frozen(weight, labels, 2.0, generator)
    loss = torch.nn.functional.cross_entropy(h @ weight.T, labels, reduction="none")
    for _ in range(200):
        other = project(
            h + 0.1 * torch.randn(h.shape, generator=generator, dtype=torch.float64), 2.0
        )
        assert (
            torch.nn.functional.cross_entropy(other @ weight.T, labels, reduction="none")
            >= loss - 1e-12
        ).all()


def test_labels_are_imbalanced_as_said():
    assert torch.bincount(state_labels(5, 7)).tolist() == [7, 7, 7, 1, 1]


def test_a_learned_head_is_a_simplex_under_balance_and_collapses_under_imbalance():
    angles = []
    for ratio in (1, 10, 100, 1000):
        weight = solve_learned(4, ratio, ARGS, torch.Generator().manual_seed(0))
        angles.append(smallest_minority_angle(weight))
    assert angles[0] == pytest.approx(math.degrees(math.acos(-1 / 3)), abs=0.1)
    assert all(later < earlier - 5 for earlier, later in pairwise(angles))


def test_minority_angle_by_hand():
    rows = torch.tensor([[9.0, 1.0], [1.0, 9.0], [2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    assert smallest_minority_angle(rows) == pytest.approx(45)


def test_the_command_writes_its_tables_and_figure(tmp_path):
    main(
        Args(out=tmp_path, theorem_actions=(2,), theorem_ratios=(1,), angle_ratios=(1, 10), seeds=1)
    )
    assert (tmp_path / "theorem.csv").read_text().startswith("num_actions,ratio,error\n2,1,")
    assert (tmp_path / "angles.csv").read_text().count("\n") == 1 + 3 * 2 * 2
    assert all(
        (tmp_path / picture).stat().st_size > 10_000 for picture in ("angles.png", "frames.png")
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"theorem_actions": (1,)}, "--theorem-actions 1: must lie in [2, 1000]"),
        ({"theorem_actions": ()}, "--theorem-actions : names none"),
        ({"theorem_actions": (2, 500), "theorem_ratios": (100,)}, "--theorem-ratios 100: are too"),
        ({"theorem_ratios": (0,)}, "--theorem-ratios 0: must lie in"),
        ({"angle_ratios": (10**9,)}, "--angle-ratios 1000000000: must lie in"),
        ({"seeds": 0}, "--seeds 0: must lie in"),
        ({"feature_dim": 0}, "--feature-dim 0: must lie in"),
        ({"sqrt_e_h": math.nan}, "--sqrt-e-h nan: must lie in"),
        ({"sqrt_e_w": -1.0}, "--sqrt-e-w -1.0: must lie in"),
    ],
)
def test_wrong_flags_are_named_and_nothing_is_written(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        main(Args(out=tmp_path / "out", **flags))
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and line.count("\n") == 1
    assert line.startswith("error: ") and message in line
    assert not [*tmp_path.iterdir()]


def test_a_bad_out_is_named_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "angles.csv").mkdir(parents=True)
    for out, message in (("file", "File exists"), ("folder", "angles.csv there is a directory")):
        with pytest.raises(SystemExit) as stopped:
            main(Args(out=tmp_path / out))
        line = capsys.readouterr().err
        assert stopped.value.code == 2 and line.count("\n") == 1
        assert line.startswith(f"error: --out {tmp_path / out}: ") and message in line
    assert [path.name for path in tmp_path.glob("folder/*")] == ["angles.csv"]
