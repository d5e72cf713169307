"""The checks of what stands in the repository: that its files are in step, and the rules of the
house. None of them runs a chapter."""

import ast
import json
import re
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import nbformat
import yaml
from chapters import (
    CHAPTERS,
    FOLDERS,
    LIB,
    MODEL_CHAPTER,
    MODULES,
    NBS,
    ROOT,
    cells,
    imported,
    imports_of,
    is_run,
    module,
    modules_of,
    parameters,
    public_functions,
    tagged,
    text,
    title,
)
from shell import Failed, copy, require, same, sh

BIN = Path(sys.executable).parent


# ---- the files are in step with each other ----


def clean():
    "Notebooks are as nbdev_clean leaves them."
    with copy() as tree:
        sh(BIN / "nbdev_clean", cwd=tree)
        same(tree, "nbs/**/*.ipynb")


def export():
    "The package is what the notebooks export, no module more."
    with copy() as tree:
        for p in tree.glob("seed_nb/**/*.py"):
            if p.name != "__init__.py":
                p.unlink()
        sh(BIN / "nbdev_export", cwd=tree)
        same(tree, "seed_nb/**/*.py")


def readme():
    "README.md is what tools/readme.py makes of the front page."
    with copy() as tree:
        sh(sys.executable, "tools/readme.py", cwd=tree)
        same(tree, "README.md", "nbs/images/*")


def diagram():
    "The pictures of the pipeline are what tools/diagram.py draws."
    with copy() as tree:
        sh(sys.executable, "tools/diagram.py", cwd=tree)
        same(tree, "nbs/images/pipeline*.svg")


def size():
    "No notebook is larger than 1.5 MB."
    sizes = ((title(p), p.stat().st_size / 1e6) for p in CHAPTERS)
    require(f"{name}: {mb:.1f} MB" for name, mb in sizes if mb > 1.5)


def valid():
    "Every notebook is what its format, nbformat 4, says."
    problems = []
    for p in CHAPTERS:
        nb = nbformat.from_dict(json.loads(p.read_text(encoding="utf-8")))
        version = dict(version=nb.nbformat, version_minor=nb.nbformat_minor)
        for error in nbformat.validator.iter_validate(nb, **version):
            problems.append(f"{title(p)}: {str(error).splitlines()[0]}")
        ids = [c.get("id") for c in nb.cells]
        problems += [f"{title(p)}: two cells have the id {i}" for i in ids if ids.count(i) > 1]
    require(problems)


def one_module():
    "No module is exported by two notebooks: the later one would silently win."
    where = {}
    for p in sorted(NBS.rglob("[!_.]*.ipynb")):
        if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts):
            for name in modules_of(p):
                where.setdefault(name, []).append(p.relative_to(ROOT).as_posix())
    found = where.items()
    require(f"{' and '.join(ps)} both export {name}" for name, ps in found if len(ps) > 1)


# ---- the rules of the house ----


def within_folders():
    """Rule 1: inside a folder the order of the files is the order of import, but for run chapters
    (rule 4), and nothing is imported by star."""
    problems = []
    for d in (*FOLDERS, "."):
        chapters = sorted((NBS / d).glob("[!_.]*.ipynb"))
        at = {m: i for i, p in enumerate(chapters) if (m := module(p))}
        for i, p in enumerate(chapters):
            last = len(chapters) if is_run(p) else i
            wrong = {m for m in imports_of(p) if m == "*" or at.get(m, -1) >= last}
            problems += [f"{title(p)} imports {m}" for m in sorted(wrong)]
    require(problems)


def engine_alone():
    "Rule 2: the engine imports nothing from outside the engine, in its cells neither."
    problems = []
    for p in (p for p in CHAPTERS if p.parent.name == "engine"):
        wrong = {m for m in imports_of(p) if not m.startswith("seed_nb.engine.")}
        problems += [f"{title(p)} imports {m}" for m in sorted(wrong)]
    require(problems)


def models_alone():
    """Rule 3: what a model chapter exports imports of the engine configs, images, files and texts
    and no world."""
    story = {
        m for p in CHAPTERS if p.parent == NBS and MODEL_CHAPTER.match(p.name) if (m := module(p))
    }
    helpers = {f"seed_nb.engine.{m}" for m in ("config", "images", "files", "text")}
    problems = []
    for p in (p for p in CHAPTERS if p.parent == NBS and MODEL_CHAPTER.match(p.name)):
        packing = {"seed_nb.engine.packing"} if p.name.startswith("05") else set()
        wrong = imports_of(p, exported=True) - story - helpers - packing
        problems += [f"{title(p)} exports code that imports {m}" for m in sorted(wrong)]
    require(problems)


def no_circle():
    """No circle in the imports of the package (rule 4: run and evaluation chapters may import
    everything else)."""
    graph = {}
    for p in MODULES:
        name = ".".join(p.relative_to(ROOT).with_suffix("").parts)
        package = name.rpartition(".")[0]
        graph[name] = imported(p.read_text(encoding="utf-8"), package)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        raise Failed(" -> ".join(e.args[1])) from None


LIGHT = """
import sys, time
start = time.process_time()
import torch
from transformers import AutoModel, Blip2QFormerModel, Blip2VisionModel, PreTrainedModel
libraries = time.process_time()
import seed_nb.tokenizer
end = time.process_time()
heavy = {"datasets", "peft", "diffusers", "seed_nb.engine.training"} & set(sys.modules)
assert not heavy, f"import seed_nb.tokenizer brings {heavy}"
took = f"{end - start:.1f} s, of which torch and transformers are {libraries - start:.1f} s"
print(took)
assert end - libraries < 1, f"import seed_nb.tokenizer takes {took} of the processor"
"""


def light():
    "Rule 5: importing the tokenizer brings neither `datasets` nor `peft` nor the training loop."
    sh(sys.executable, "-c", LIGHT)


def names():
    "No public name is exported twice, but for the verbs that every run chapter has."
    where = {}
    for p in MODULES:
        for node in ast.parse(p.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                for name in ast.literal_eval(node.value):
                    where.setdefault(name, []).append(p.relative_to(LIB).as_posix())
    verbs = {"train", "evaluate"}
    require(f"{n} of {', '.join(ps)}" for n, ps in where.items() if len(ps) > 1 and n not in verbs)


def hints():
    "Every public function has a docstring, and type hints for its arguments and its result."
    problems = []
    for p in MODULES:
        for name, f in public_functions(p):
            bare = [a.arg for a in (*f.args.args, *f.args.kwonlyargs) if a.annotation is None]
            bare = [a for a in bare if a not in ("self", "cls", "ctx")]
            lacks = bare + ["result"] * (f.returns is None)
            if lacks and not any("overload" in ast.unparse(d) for d in f.decorator_list):
                problems.append(f"{p.relative_to(LIB)}: {name}: no type for {', '.join(lacks)}")
            if "." not in name and not ast.get_docstring(f):
                problems.append(f"{p.relative_to(LIB)}: {name}: no docstring")
    require(problems)


def openings():
    """A chapter opens with a cell of its title and one quoted line: the docs keep nothing else
    of that cell."""
    for p in CHAPTERS:
        first = text(cells(p, "markdown")[0])
        if not re.fullmatch(r"# [^\n]+(\n\n> [^\n]+)?", first):
            raise Failed(f"{title(p)}: the first cell is\n{first}")


def commands():
    "Commands and Python in the documents are such as their programs take."
    sh(sys.executable, "-W", "ignore", "tools/commands.py")


def sidebar():
    "Every chapter stands once in the sidebar of the documentation (nbs/_quarto.yml)."
    listed = []

    def visit(entries):
        for entry in [entries] if isinstance(entries, str) else entries:
            if isinstance(entry, str):
                listed.extend(sorted(NBS.glob(entry)) or [NBS / entry] * ("*" not in entry))
            elif "href" in entry:
                listed.append(NBS / entry["href"])
            else:
                visit(entry["contents"])

    site = yaml.safe_load((NBS / "_quarto.yml").read_text(encoding="utf-8"))["website"]
    visit(site["sidebar"]["contents"])
    times = Counter(listed)
    require(f"{title(p)}: {times[p]} times in the sidebar" for p in CHAPTERS if times[p] != 1)
    require(f"in the sidebar, but not there: {p.name}" for p in times if not p.is_file())


NOT_PROSE = re.compile(r"^(```|~~~).*?^\1|`[^`]*`|!?\[[^]]*\]\([^)]*\)", re.M | re.S)
MENTION = re.compile(
    r"\b[Cc]hapters?\s+(?:\w+/)?\d\d[a-z]*\b|\b(?:engine|emoji|scale)/\d\d[a-z]*\b"
)


def mentions():
    "Where the text of a chapter names another by its number, it is a link."
    found = (
        (p, m.group())
        for p in CHAPTERS
        for cell in cells(p, "markdown")
        for m in MENTION.finditer(NOT_PROSE.sub(" ", text(cell)))
    )
    require(f"{title(p)}: {' '.join(mention.split())} is no link" for p, mention in found)


def params():
    """A run chapter has exactly one `parameters` cell, of plain literals, and checks it in the next
    one; the others have none."""
    for p in CHAPTERS:
        if (n := len(tagged(p))) != is_run(p):
            raise Failed(f"{title(p)}: {n} cells are tagged `parameters`")
        code = cells(p)
        following = [b for a, b in pairwise(code) if a in tagged(p)]
        if not all(text(c).startswith("check_parameters(globals())") for c in following):
            raise Failed(f"{title(p)}: no check_parameters(globals()) follows the parameters")
        values = parameters(p).items()
        require(f"{title(p)}: {k} is no plain literal" for k, s in values if not is_literal(s))


def is_literal(statement) -> bool:
    "Whether the right side of this assignment is a plain literal."
    try:
        ast.literal_eval(statement.value)
    except (ValueError, AttributeError):
        return False
    return True


def ruff():
    "The lint rules of pyproject.toml, and its format."
    places = "nbs", "tools", "setup.py"
    sh(BIN / "ruff", "check", "--no-cache", *places)
    sh(BIN / "ruff", "format", "--check", "--no-cache", *places)


def unsafe(node) -> list[str]:
    "Words for what is unsafe about this call, if anything."
    if not isinstance(node, ast.Call):
        return []
    name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        return ["torch.load of any object"]
    bad = dict(trust_remote_code="True", allow_pickle="True", strict="False")
    wrong = [
        k for k, v in given.items() if bad.get(k) == v and not (k == "strict" and name == "zip")
    ]
    return [f"{k}={bad[k]}" for k in wrong]


def strict_loading():
    """The project's own rule beside ruff's bandit rules: nothing in the package unpickles, runs a
    model's foreign code, or loads weights that do not fit."""
    found = (
        (p, node.lineno, what)
        for p in MODULES
        for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
        if (what := ", ".join(unsafe(node)))
    )
    require(f"{p.relative_to(LIB)}:{line}: {what}" for p, line, what in found)


PROMISED = {"images": ["FORMATS", "MAX_PIXELS"], "sources": ["MAX_FILE", "MAX_TEXT"]}
PROMISED |= {"shards": ["MAX_MEMBER"]}


def promises():
    "SECURITY.md names the formats and the limits that the code has."
    said = (ROOT / "SECURITY.md").read_text(encoding="utf-8").upper()
    for name, constants in PROMISED.items():
        for node in ast.parse((LIB / f"engine/{name}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in constants:
                value = ast.literal_eval(node.value)
                words = value if isinstance(value, tuple) else [f"{value:,}"]
                require(f"SECURITY.md does not name {w}" for w in words if w not in said)


RANGES = """
import importlib, sys
from seed_nb.engine.config import Config, unranged
for name in sys.argv[1:]:
    importlib.import_module(name)
classes = [Config]
for c in classes:
    classes += c.__subclasses__()
print("\\n".join(f"{c.__module__}.{c.__name__}.{f}" for c in classes for f in unranged(c)))
"""


def ranges():
    "Every number in a config has a range that is declared beside it."
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES]
    found = sh(sys.executable, "-W", "ignore", "-c", RANGES, *names).splitlines()
    require(f"{line} has no range" for line in found if line.startswith("seed_nb."))


ALL = [clean, export, readme, diagram, size, valid, one_module]
ALL += [within_folders, engine_alone, models_alone, no_circle, light, names, hints, openings]
ALL += [commands, sidebar, mentions, params, ruff, strict_loading, promises, ranges]
