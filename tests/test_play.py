"""benchmark/play.py: the episodes of a run's own evaluation, films of them, and what it refuses."""

import csv
import importlib
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmark import play

ROOT = Path(__file__).parents[1]


def train(folder: Path, script: str, *flags: object) -> Path:
    """The directory of a short run."""
    module = importlib.import_module(script)
    words = ["--total-timesteps", 1500, "--runs-dir", folder, *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__file__, *map(str, words)])
        module.main()
    (run,) = folder.iterdir()
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of PPO on CartPole with the frozen head. Nothing may write there."""
    return train(tmp_path_factory.mktemp("runs"), "ppo_acpg", "--etf-head", "--seed", 3)


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> Path:
    """A copy of that run, seen from the project's directory."""
    monkeypatch.chdir(ROOT)
    return shutil.copytree(trained, tmp_path / "run")


def evaluation(run: Path) -> list[tuple[float, int]]:
    """Returns and lengths in evaluation.csv."""
    with open(run / "evaluation.csv") as file:
        return [(float(row["return"]), int(row["length"])) for row in csv.DictReader(file)]


@pytest.fixture
def played(monkeypatch) -> list[tuple[float, int]]:
    """The episodes of all calls of `play`."""
    episodes = []
    inner = play.play

    def record(*args):
        results = inner(*args)
        episodes.extend(results)
        return results

    monkeypatch.setattr(play, "play", record)
    return episodes


def refused(capsys, *args, **flags) -> str:
    """The one line of an exit with code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        play.main(play.Args(*args, **flags))
    assert exit.value.code == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert output.out == ""
    return line


@pytest.mark.parametrize("file", ["", "checkpoint.pt"])
def test_the_episodes_are_those_of_the_evaluation(run, played, capsys, file):
    files = sorted(run.iterdir())
    capsys.readouterr()
    play.main(play.Args(run / file))
    expected = evaluation(run)
    assert played == expected and len({value for value, _ in expected}) > 1
    printed = capsys.readouterr().out
    mean = sum(value for value, _ in expected) / 10
    assert printed.startswith(f"10 greedy episodes of CartPole-v1: return {mean:.1f} +- ")
    assert printed.count("\n") == 1 and sorted(run.iterdir()) == files


def test_more_episodes_than_environments(tmp_path, monkeypatch, played):
    run = train(tmp_path / "runs", "ppo_acpg", "--eval-episodes", 13)
    monkeypatch.chdir(ROOT)
    play.main(play.Args(run, episodes=13))
    assert played == evaluation(run) and len(played) == 13


def test_environments_that_draw_from_global_generators(tmp_path, monkeypatch, played):
    """They go on from where they were when the run was evaluated."""
    (tmp_path / "dice.py").write_text(
        "import random\n"
        "import gymnasium as gym, numpy as np\n"
        "class Dice(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1, 1, (1,))\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        return np.zeros(1, np.float32), {}\n"
        "    def step(self, action):\n"
        "        reward = random.random() + np.random.rand()\n"
        "        return np.zeros(1, np.float32), reward, True, False, {}\n"
        "gym.register('Dice-v0', Dice)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = train(tmp_path / "runs", "ppo_acpg", "--env-id", "dice:Dice-v0")
    monkeypatch.chdir(ROOT)
    play.main(play.Args(run, env_id="dice:Dice-v0"))
    assert played == evaluation(run) and len(set(played)) == 10


def test_a_renamed_script(run, tmp_path, played, capsys):
    copy = shutil.copy(ROOT / "ppo_acpg.py", tmp_path / "mine.py")
    play.main(play.Args(run, script=copy))
    assert played == evaluation(run)
    assert "no_such" in refused(capsys, run, script=tmp_path / "no_such.py")

    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save(checkpoint | {"script": "mine"}, run / "checkpoint.pt")
    line = refused(capsys, run)
    assert line.startswith(f"error: RUN {run}: was written by mine.py, ") and "--script" in line


def test_other_files_are_not_run_because_a_checkpoint_names_them(
    run, tmp_path, monkeypatch, capsys
):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for path in (work / "tidy.py", tmp_path / "outside_acpg.py"):
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    for script in ("tidy", "../outside_acpg", "", 7):
        torch.save(checkpoint | {"script": script}, run / "checkpoint.pt")
        assert f"was written by {script}.py" in refused(capsys, run)
    assert not (tmp_path / "ran").exists()


def test_a_script_of_other_flags_says_what_it_has_no_use_for(run, played, capsys):
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    checkpoint["args"]["dropout"] = 0.1
    del checkpoint["args"]["target_kl"]
    torch.save(checkpoint, run / "checkpoint.pt")
    play.main(play.Args(run))
    assert played == evaluation(run)
    assert capsys.readouterr().err == f"RUN {run}: the script has no use for its flags dropout\n"


@pytest.mark.parametrize("damage", ["truncated", "list", "no-agent", "code"])
def test_damaged_checkpoints(run, capsys, damage):
    path = run / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif damage == "list":
        torch.save([1, 2], path)
    elif damage == "no-agent":
        del checkpoint["agent"]
        torch.save(checkpoint, path)
    else:
        torch.save(checkpoint | {"path": Path("a class that weights_only refuses")}, path)
    line = refused(capsys, run)
    assert line.startswith(f"error: RUN {run}: cannot be read as a checkpoint (")
    assert "weights_only" not in line


def test_missing_runs(run, capsys):
    (run / "checkpoint.pt").unlink()
    assert refused(capsys, run) == f"error: RUN {run}: there is no file {run}/checkpoint.pt"
    nowhere = run / "nowhere"
    assert refused(capsys, nowhere) == f"error: RUN {nowhere}: there is no file {nowhere}"


def test_weights_that_do_not_fit(run, capsys, monkeypatch):
    monkeypatch.setattr(play, "find_spec", lambda name: "as if moviepy were there")
    path = run / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"args": checkpoint["args"] | {"hidden_size": 32}}, path)
    for video in (False, True):
        line = refused(capsys, run, video=video)
        assert line.startswith(f"error: RUN {run}: does not fit this script: ")
        assert "size mismatch" in line
    assert not (run / "videos").exists()


def test_wrong_flags(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(play, "find_spec", lambda name: None)
    text = tmp_path / "text.md"
    text.write_text("no Python")
    (tmp_path / "empty.py").touch()
    for flags, expected in (
        ({"episodes": 0}, "error: --episodes 0: must be at least 1"),
        ({"video": True}, "error: --video True: needs moviepy: pip install moviepy"),
        (
            {"env_id": "Acrobot-v1"},
            f"error: --env-id Acrobot-v1: but {run} was trained on CartPole",
        ),
        ({"script": text}, f"error: --script {text}: cannot be run (SyntaxError: "),
        (
            {"script": tmp_path / "empty.py"},
            f"error: --script {tmp_path}/empty.py: defines no Args",
        ),
    ):
        assert refused(capsys, run, **flags).startswith(expected)
    assert not (run / "videos").exists()


def test_a_module_is_imported_only_if_the_command_line_names_it(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "trojan.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    checkpoint["args"]["env_id"] = "trojan:Horse-v0"
    torch.save(checkpoint, run / "checkpoint.pt")
    line = refused(capsys, run)
    assert line.startswith(f"error: RUN {run}: was trained on trojan:Horse-v0; ")
    assert line.endswith("only with --env-id trojan:Horse-v0")
    assert "was trained on trojan:Horse-v0" in refused(capsys, run, env_id="other:Horse-v0")
    assert not (tmp_path / "ran").exists()
    refused(capsys, run, env_id="trojan:Horse-v0")
    assert (tmp_path / "ran").exists()


@pytest.fixture
def films(monkeypatch) -> dict[str, list]:
    """The frames of each film by its name. A stand-in takes the place of moviepy, which is no
    requirement: it shows what moviepy is asked to film, not that moviepy can."""
    films = {}

    class ImageSequenceClip:
        def __init__(self, frames: list, fps: int):
            self.frames = frames

        def write_videofile(self, path: str, logger: str | None) -> None:
            Path(path).touch()
            films[Path(path).name] = self.frames

    name = "moviepy"
    for part in ("", ".video", ".io", ".ImageSequenceClip"):
        name += part
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    module.ImageSequenceClip = ImageSequenceClip
    return films


def test_films(run, played, films, capsys):
    capsys.readouterr()
    play.main(play.Args(run, episodes=3, video=True))
    names = [f"rl-video-episode-{k}.mp4" for k in range(3)]
    assert [*films] == names == sorted(path.name for path in (run / "videos").iterdir())
    assert [len(frames) for frames in films.values()] == [length + 1 for _, length in played]
    assert {frame.shape for frames in films.values() for frame in frames} == {(400, 600, 3)}
    line, folder = capsys.readouterr().out.splitlines()
    assert line.startswith("3 greedy episodes of CartPole-v1: return ") and folder == str(
        run / "videos"
    )


def test_a_film_is_no_longer_than_memory_allows(run, played, films, monkeypatch):
    monkeypatch.setattr(play, "FILM_LENGTH", 5)
    play.main(play.Args(run, episodes=2, video=True))
    assert [len(frames) for frames in films.values()] == [6, 6]
    assert all(length > 6 for _, length in played)


def test_environments_that_cannot_be_filmed(tmp_path, monkeypatch, films, capsys):
    env_id = "tests.probes:SeenReward-v0"
    run = train(tmp_path / "runs", "ppo_acpg", "--env-id", env_id)
    monkeypatch.chdir(ROOT)
    line = refused(capsys, run, env_id=env_id, video=True)
    assert line.startswith(f"error: --video True: {env_id} has no render mode rgb_array")
    assert not (run / "videos").exists()


def test_scripts_that_evaluate_themselves(tmp_path, monkeypatch, capsys):
    """Goes with the branch of `main` for them."""
    run = train(tmp_path / "runs", "a2c_acpg")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", sys.argv)
    capsys.readouterr()
    play.main(play.Args(run, episodes=4))
    assert capsys.readouterr().out.startswith("4 greedy episodes of CartPole-v1: return ")
