"""What tests, runner, tables, speed and collapse know of the algorithms: algorithms.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Algorithm:
    """An entry of algorithms.toml, which says what its fields mean."""

    name: str
    probe: str
    cartpole: int
    short: str = ""
    log_all: str = ""
    shares: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        return f"{self.name}_acpg"


def read_algorithms(path: Path) -> dict[str, Algorithm]:
    """The entries by the names of their scripts, in their order. Raises TypeError for a key that is
    unknown or missing."""
    entries = tomllib.loads(path.read_text())
    algorithms = (Algorithm(name, **entry) for name, entry in entries.items())
    return {algorithm.script: algorithm for algorithm in algorithms}


ALGORITHMS = read_algorithms(Path(__file__).with_name("algorithms.toml"))
