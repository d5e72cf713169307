"""How much of the package the tests execute: lines and branches, in every process they start."""

import ast
import json
import os
import warnings
from pathlib import Path

from chapters import LIB, MODULES, ROOT, public_functions

GOAL = 90  # percent of the lines and branches of seed_nb
FLOOR = 94  # below this share the tests fail


def environment(folder: Path) -> dict[str, str]:
    """The environment in which Python measures itself by the settings of pyproject.toml.

    Each process leaves a file in `folder`."""
    return dict(
        COVERAGE_PROCESS_START=str(ROOT / "pyproject.toml"),
        COVERAGE_FILE=str(folder / "coverage"),
        SEED_NB_SOURCE=str(LIB),
    )


def measured(folder: Path) -> dict:
    "What the processes that left their files in `folder` executed: `totals`, and `files` by path."
    import coverage

    os.environ["SEED_NB_SOURCE"] = str(LIB)
    how = dict(data_file=str(folder / "all"), config_file=str(ROOT / "pyproject.toml"))
    cover = coverage.Coverage(messages=False, data_suffix=False, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file of a process that was killed while it wrote
        cover.combine([str(p) for p in folder.glob("coverage.*")])
    cover.json_report([str(p) for p in MODULES], outfile=str(folder / "coverage.json"))
    found = json.loads((folder / "coverage.json").read_text(encoding="utf-8"))
    files = {str((ROOT / name).relative_to(LIB)): f for name, f in found["files"].items()}
    return dict(totals=found["totals"], files=files)


def percent(summary: dict) -> float:
    "The share of lines and branches that were executed, in percent."
    return summary["percent_covered"]


def missing(file: dict) -> str:
    "The lines of a module that nothing executed, as ranges."
    ranges = []
    for line in file["missing_lines"]:
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "none"


def line(found: dict) -> str:
    "One line: the share of the package that was executed, and its five least tested modules."
    worst = sorted(found["files"].items(), key=lambda item: percent(item[1]["summary"]))[:5]
    worst = ", ".join(f"{name} {percent(f['summary']):.0f} %" for name, f in worst)
    total = found["totals"]
    branches = 100 * total["covered_branches"] / max(1, total["num_branches"])
    return (
        f"coverage of seed_nb: {percent(total):.1f} % of its lines and branches"
        f" ({branches:.1f} % of the branches; goal {GOAL}); least: {worst}"
    )


def not_exercised(found: dict):
    "Public functions and methods of the package of whose body nothing was executed."
    for path in MODULES:
        file = found["files"].get(str(path.relative_to(LIB)), dict(executed_lines=()))
        executed, source = set(file["executed_lines"]), path.read_text(encoding="utf-8")
        counted = executed | set(file.get("missing_lines", ()))
        for name, node in public_functions(path):
            body = node.body[ast.get_docstring(node) is not None :]
            lines = set(range(body[0].lineno, node.end_lineno + 1)) & counted if body else set()
            if lines and not lines & executed:
                yield f"{path.relative_to(LIB)}: {name}: {source.splitlines()[node.lineno - 1]}"
