"""Read the commands and the Python in README.md, its neighbours and the text of the chapters as far
as can be without running them: `python tools/commands.py` prints what is wrong.

Commands of this project are read by their own parsers, down to the fields of a config; files,
parameters of chapters, targets of the Makefile and modules must be there."""

import ast
import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from configparser import ConfigParser

import yaml
from chapters import CHAPTERS, ROOT, cells, parameters, text, title

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OTHERS = {"git", "hf", "jupyter", "lmms-eval", "npm", "srun"}  # nothing of ours can be checked
LAUNCHED = {"--config", "--out-dir"}  # what the modules of the stages take


def documents() -> Iterator[tuple[str, str]]:
    "The name and the text of each document."
    for path in sorted(ROOT.glob("*.md")):
        yield path.name, path.read_text(encoding="utf-8")
    for path in CHAPTERS:
        yield title(path), "\n\n".join(map(text, cells(path, "markdown")))


def lines(block: str) -> list[list[str]]:
    "The commands of a block, as words."
    joined = re.sub(r"\\\n\s*", " ", block).splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


# ---- what a program makes of its words ----


def seed_nb(words: list[str], whole: bool) -> Iterator[str]:
    "What the command line of this project says against `words`; a part of a command may lack some."
    from seed_nb import commands
    from seed_nb.cli import parser
    from seed_nb.engine.config import SeedError

    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            args = parser().parse_args(words)
    except SystemExit:
        why = err.getvalue().strip().splitlines()[-1]
        if whole or "arguments are required" not in why:
            yield why
        return
    try:
        if args.command == "train":
            commands.stage_config(args)
        if args.command == "eval" and getattr(args, "set", None):
            commands.eval_config(args, config_of(args.what))
    except SeedError as e:
        yield str(e)


def config_of(what: str) -> type:
    "The config of `seed-nb eval WHAT`."
    from seed_nb.eval_llm import LMEval
    from seed_nb.eval_tokenizer import TokenizerEval

    return dict(tokenizer=TokenizerEval, llm=LMEval)[what]


def papermill(words: list[str], whole: bool) -> Iterator[str]:
    "Notebooks, files and parameters that are not there."
    path = ROOT / words[0]
    if not path.is_file():
        yield f"no notebook {words[0]}"
        return
    given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    for file in (words[i + 1] for i, word in enumerate(words) if word == "-f"):
        if (ROOT / file).is_file():
            given += yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        else:
            yield f"no file {file}"
    yield from (f"{words[0]} has no parameter {p}" for p in given if p not in parameters(path))


def make(words: list[str], whole: bool) -> Iterator[str]:
    "Targets that the Makefile does not have."
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    yield from (f"no target {w}" for w in words if "=" not in w and w not in known)


def launch(words: list[str], whole: bool) -> Iterator[str]:
    "Modules, their options, and files of settings that are not there."
    for i, word in enumerate(words):
        if word == "--config_file" and not (ROOT / words[i + 1]).is_file():
            yield f"no file {words[i + 1]}"
    module, rest = after_m(words)
    if not module.startswith("seed_nb."):
        return
    if not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():
        yield f"no module {module}"
    options = {w for w in rest if w.startswith("--")}
    yield from (f"{module} has no option {o}" for o in sorted(options - LAUNCHED))


def after_m(words: list[str]) -> tuple[str, list[str]]:
    "The module that follows `-m`, and the words after it."
    at = words.index("-m") if "-m" in words else len(words)
    return "".join(words[at + 1 : at + 2]), words[at + 2 :]


def python(words: list[str], whole: bool) -> Iterator[str]:
    "Files that are not there."
    if words[0] == "-m":
        yield from launch(words, whole)
    elif words[0] != "-c" and not (ROOT / words[0]).is_file():
        yield f"no file {words[0]}"


def pip(words: list[str], whole: bool) -> Iterator[str]:
    "Extras that settings.ini does not have."
    settings = ConfigParser()
    settings.read(ROOT / "settings.ini")
    extras = [e for w in words for found in re.findall(r"\[(.+)\]", w) for e in found.split(",")]
    known = settings["DEFAULT"]
    yield from (f"no extra {e}" for e in extras if f"{e.strip()}_requirements" not in known)


PROGRAMS = {"seed-nb": seed_nb, "papermill": papermill, "make": make, "python": python, "pip": pip}
PROGRAMS |= dict.fromkeys(["torchrun", "accelerate"], launch)


def wrong(words: list[str], whole: bool) -> Iterator[str]:
    "What is wrong with a command; of a part of one, only what is wrong with that."
    program, *rest = words[0].removeprefix(".venv/bin/"), *words[1:]
    if program not in PROGRAMS:
        if whole and program not in OTHERS:
            yield "no check for this program"
        return
    if not whole:  # `seed-nb train ...`, or a list of alternatives
        rest = [w for w in rest[: rest.index("|") if "|" in rest else None] if w != "..."]
    if rest:
        yield from PROGRAMS[program](rest, whole)


# ---- Python ----


def names_of(module: str) -> set[str]:
    "The names at the top level of a module of the package."
    file = (ROOT / module.replace(".", "/")).with_suffix(".py")
    if not file.is_file():
        return set()
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        found |= {getattr(node, "name", "")}
        found |= {a.asname or a.name for a in getattr(node, "names", ())}
        found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found


def wrong_python(code: str) -> Iterator[str]:
    "What is wrong with Python code: its syntax, or what it imports of the package."
    try:
        body = ast.parse(code).body
    except SyntaxError as e:
        yield f"{e.msg}, line {e.lineno}"
        return
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seed_nb"):
            lacks = [a.name for a in node.names if a.name not in names_of(node.module)]
            yield from (f"{node.module} has no {name}" for name in lacks)


# ---- the documents ----


def problems(document: str) -> Iterator[str]:
    "What is wrong with what a document shows."
    for kind, block in FENCE.findall(document):
        if kind in ("python", "py"):
            yield from (f"{why}: {block.splitlines()[0]}" for why in wrong_python(block))
        if kind in ("sh", "bash", "shell", ""):
            for words in lines(block) if kind else shown(block):
                yield from (f"{' '.join(words)}: {why}" for why in wrong(words, True))
    for part in INLINE.findall(FENCE.sub("", document)):
        if part.split()[0].removeprefix(".venv/bin/") in PROGRAMS:
            yield from (f"{part}: {why}" for why in wrong(shlex.split(part), False))


def shown(block: str) -> list[list[str]]:
    "The commands in a block that does not say what it holds: lines that begin with a program."
    known = {*PROGRAMS, *OTHERS}
    return lines(
        "\n".join(line for line in block.splitlines() if (line.split() or [""])[0] in known)
    )


if __name__ == "__main__":
    found = [f"{name}: {why}" for name, document in documents() for why in problems(document)]
    print("\n".join(found))
    sys.exit(bool(found))
