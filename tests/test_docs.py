"""README.md and docs/: their size, links, commands, and the code that they quote."""

import contextlib
import io
import re
import shlex
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from benchmark import run as runner
from benchmark.runner.check import load

README = Path("README.md")
LESSON = Path("docs/lesson.md")
PAGES = [README, *sorted(Path("docs").glob("*.md")), Path("CONTRIBUTING.md")]
TOOLS = {"tensorboard", "cp", ".", "ruff", "python3.11"}  # other people's programs
OPEN_ENDED = (
    "benchmark.collapse",
    "benchmark.seeds.ppo_acpg",
)  # pass on flags that they don't know


def text_of(page: Path) -> str:
    """The page without what only cog reads."""
    return re.sub(r"<!-- \[\[\[cog.*?\]\]\] -->", "", page.read_text(), flags=re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


# FORM
def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200 and README.stat().st_size <= 16_000


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_are_wrapped(page):
    """But for tables and for lines that are one link or picture."""
    for line in prose(page).splitlines():
        assert len(line) <= 120 or line.startswith(("|", "![", "<")), line


# LINKS
def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page.resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# COMMANDS
def commands(page: Path) -> list[str]:
    """Lines for a shell: those of blocks, and those in the text that start a program of ours."""
    lines = [
        line
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    spans = re.findall(r"`((?:python|bash|tensorboard|\.venv/bin/python) [^`]*)`", prose(page))
    return lines + [" ".join(span.split()) for span in spans]


COMMANDS = sorted({(str(page), command) for page in PAGES for command in commands(page)})


@cache
def script_of(name: str) -> ModuleType:
    return load(name)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """What the pages call mine_acpg.py: a copy of ppo_acpg.py under another name."""
    path = tmp_path_factory.mktemp("copy") / "mine_acpg.py"
    path.write_text(Path("ppo_acpg.py").read_text())
    return path


def files_exist(words: list[str]) -> None:
    files = [word for word in words if re.fullmatch(r"[\w/-]+\.(py|md)", word)]
    assert all(Path(file).exists() for file in files), files


def parse_script(path: str, flags: list[str]) -> None:
    script = script_of(path)
    sys.argv = [path, *flags]
    script.check_flags(script.parse_args(script.Args()))


def parse_module(module: str, flags: list[str]) -> None:
    if module in ("venv", "pytest", "cogapp"):
        files_exist(flags)
        return
    is_package = Path(module.replace(".", "/")).is_dir()
    found = import_module(f"{module}.__main__" if is_package else module)
    if not flags:  # only its name
        return
    if module == "benchmark.collapse":
        args, others = tyro.cli(found.Args, args=flags, return_unknown_args=True)
        parse_script(f"{args.script}.py", others)
        return
    if module.startswith("benchmark.seeds."):
        parse_script(f"{module.replace('.', '/')}.py", flags)
        return
    args = tyro.cli(found.Args, args=flags)
    if module == "benchmark.run":
        runner.plan.asked_for(args)  # scripts and heads exist, entries of --flags are for an arm


def parse(words: list[str], copy: Path) -> None:
    """Let the program's own parser read its flags. Raises, or exits, if it will not."""
    program, *flags = [word.replace("<run>", "a-run").replace("DIR", "dir") for word in words]
    if program in TOOLS or program.endswith("pip"):
        files_exist(flags)
    elif program == "bash":
        own = re.findall(r'"\$\{1-\}" = (--\w+)', Path(flags[0]).read_text())  # which come first
        tyro.cli(runner.Args, args=flags[2:] if flags[1:2] and flags[1] in own else flags[1:])
    elif flags[0] == "-m":
        parse_module(flags[1], [flag.replace("mine_acpg", "ppo_acpg") for flag in flags[2:]])
    else:
        parse_script(flags[0].replace("mine_acpg.py", str(copy)), flags[1:])


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_are_understood(page, command, copy, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}")  # as if of sbatch
    said = io.StringIO()
    for part in command.split("&&"):
        words = shlex.split(part, comments=True)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                if words:
                    parse(words, copy)
        except SystemExit as end:
            assert end.code == 0, f"{part}\n{said.getvalue()}"


def test_there_are_commands():
    assert len(COMMANDS) > 50


# QUOTED CODE
def edits(lesson: Path) -> list[list[tuple[str, str]]]:
    """Of each exercise its changes of the script: what stood there, and what stands there now."""
    exercises = []
    for section in lesson.read_text().split("\n### ")[1:]:
        changes = []
        for block in re.findall(r"^```diff\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            lines = [(line[:1], line[1:]) for line in block.splitlines()]
            old = "\n".join(line for sign, line in lines if sign != "+")
            new = "\n".join(line for sign, line in lines if sign != "-")
            changes.append((old, new))
        if changes:
            exercises.append(changes)
    return exercises


def test_the_lesson_quotes_the_script():
    code = Path("ppo_acpg.py").read_text()
    quotes = blocks(LESSON, "python")
    assert len(quotes) >= 8
    for quote in quotes:
        assert code.count(quote) == 1, quote


def test_the_lesson_names_functions_of_the_script():
    script = script_of("ppo_acpg.py")
    for name in ("ppo_loss", "gae", "collect", "frame_metrics", "simplex_etf", "make_head"):
        assert f"`{name}`" in LESSON.read_text() and hasattr(script, name)


@pytest.mark.parametrize("number", range(5))
def test_an_exercise_is_an_edit_of_the_script_that_runs(number, tmp_path, monkeypatch):
    code = Path("ppo_acpg.py").read_text()
    for old, new in edits(LESSON)[number]:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    path = tmp_path / "mine_acpg.py"
    path.write_text(code)
    flags = (
        "--env-id benchmark.envs:SemanticCliffWalking-v0 --total-timesteps 600 --eval-episodes 0"
    )
    head = ["--etf-head"] if number == 4 else []
    words = [str(path), *flags.split(), *head, "--runs-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", words)
    load(str(path)).main()
    assert list((tmp_path / "runs").glob("*/checkpoint.pt"))


def test_the_readme_s_example_is_an_edit_of_the_script():
    (example,) = blocks(README, "python")
    script = load("ppo_acpg.py")
    exec(example, script.__dict__)
    agent = script.Agent((4,), 3, script.Args())
    _, logits = agent(script.torch.randn(7, 4))
    assert logits.shape == (7, 3) and logits.abs().max() <= 5


def test_what_is_said_to_edit_is_there():
    script = script_of("ppo_acpg.py")
    for name in ("make_head", "Backbone", "ppo_loss", "collect", "train"):
        assert hasattr(script, name) and f"`{name}`" in README.read_text()


def test_every_logged_tag_is_in_the_docs():
    """Names of charts, losses and measures in the scripts' text."""
    page = Path("docs/scripts.md").read_text()
    for script in Path().glob("*_acpg.py"):
        code = script.read_text()
        names = re.findall(r'metrics\["(\w+)"\] =', code)
        names += re.findall(r'run\.log\("\w+", \{"(\w+)"', code)
        names += re.findall(r'parts\["(\w+)"\] =', code)
        for group in re.findall(r"(?:parts|stats) = \{(.*?)\}", code, re.DOTALL):
            names += re.findall(r'"(\w+)":', group)
        assert len(names) > 5
        for name in names:
            assert re.search(rf"[`/]{name}`", page), f"{script}: {name}"
