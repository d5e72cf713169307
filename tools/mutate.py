"""Change the code of a chapter in one place, run its cells, and see whether they notice:
`python tools/mutate.py nbs/02_vq.ipynb -n 30`

A change that no cell notices, by an assert or by what it prints, is listed as a survivor: a line
that no test holds in place, or one that may as well be written the other way. The sample is the
same for the same code and `--seed`. Every mutant runs in a process of its own, forked where the
libraries are imported already, on a copy of the package that has the change, too."""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import run_cells
from chapters import LIB, NBS, ROOT, cells, directives, imports, is_exported, module, places, text

CHAPTERS = [
    NBS / f"{name}.ipynb"
    for name in (
        "02_vq",
        "01_causal_qformer",
        "engine/04_packing",
        "04a_tokenizer",
        "engine/09_checkpoints",
    )
]

# ---- what is changed ----

OTHER = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def having(node, **fields):
    "A copy of `node` with other `fields`."
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def variants(node):
    "Other nodes that may stand in place of `node`; None drops it, a statement."
    if isinstance(node, ast.Compare):
        first, *rest = node.ops
        yield having(node, ops=[OTHER[type(first)](), *rest])
    elif isinstance(node, (ast.BinOp, ast.BoolOp)):
        if type(node.op) in OTHER:
            yield having(node, op=OTHER[type(node.op)]())
        yield from (node.left, node.right) if isinstance(node, ast.BinOp) else node.values
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, other_constants(node.value))
    elif isinstance(node, (ast.IfExp, ast.If, ast.While)):
        yield having(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call):
        if len(node.args) > 1:
            yield having(node, args=[node.args[1], node.args[0], *node.args[2:]])
        for k in node.keywords:
            yield having(node, keywords=[x for x in node.keywords if x is not k])
    elif isinstance(node, (ast.AugAssign, ast.Raise)) or (
        isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield))
    ):
        yield None


def other_constants(value):
    "Values to try in place of a constant; texts are left alone."
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    return [value * 2] if isinstance(value, float) else []


def parts(node):
    "The nodes below `node` that may be changed: no annotations, decorators, texts and messages."
    if isinstance(node, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)):
        return
    left_out = {"annotation", "returns", "decorator_list", "type_params"}
    for name, value in ast.iter_fields(node):
        if name not in left_out:
            below = value if isinstance(value, list) else [value]
            yield from (n for n in below if isinstance(n, ast.AST))


@dataclass
class Mutant:
    "A cell of a chapter with one place changed."

    cell: str  # its source
    source: str  # its changed source
    first: int  # the lines that changed in it, from 1
    last: int
    file: str  # of the module, and how much further down the cell stands there
    shift: int

    def lines(self, source: str, more: int = 0) -> list[str]:
        return source.splitlines()[self.first - 1 : self.last + more]

    def changed(self) -> list[str]:
        "The lines that take the place of those from `first` to `last`."
        more = len(self.source.splitlines()) - len(self.cell.splitlines())
        return self.lines(self.source, more)

    def __str__(self):
        where = f"{Path(self.file).relative_to(LIB)}:{self.first + self.shift}"
        pairs = zip(self.lines(self.cell), self.changed())
        old, new = next(((a, b) for a, b in pairs if a != b), ("...", "..."))
        return f"{where}\n    - {old.strip()}\n    + {new.strip()}"


def replaced(source: str, node, new) -> str:
    "`source` with the text of `new` in the place of `node`."
    lines = source.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    written = "pass" if new is None else ast.unparse(new)
    if isinstance(node, ast.expr) and not isinstance(new, (ast.Constant, ast.Name, ast.Call)):
        written = f"({written})"
    whole = source.encode()
    return (whole[:start] + written.encode() + whole[end:]).decode()


def mutants(path: Path):
    "Every mutant of the exported cells of the chapter at `path`."
    table = places(path)
    for cell in filter(is_exported, cells(path)):
        source, waiting = text(cell), [ast.parse(text(cell))]
        while waiting:
            node = waiting.pop(0)
            waiting += parts(node)
            for new in variants(node):
                old = node
                if isinstance(node, (ast.If, ast.While)):  # the rest stays as it is written
                    old, new = node.test, new.test
                changed = replaced(source, old, new)
                if compiles(changed) and changed != source:
                    yield Mutant(source, changed, old.lineno, old.end_lineno, *table[source])


def compiles(source: str) -> bool:
    "Whether `source` is Python."
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


# ---- a copy of the package with the change ----


def tree_with(mutant: Mutant | None, tree: Path):
    "Make `tree` a copy, by links, of the repository in which the file of `mutant` is changed."
    file = Path(mutant.file) if mutant else None
    for p in ROOT.iterdir():
        if not p.name.startswith(".") and p != LIB:
            (tree / p.name).symlink_to(p)
    link(LIB, tree / LIB.name, file)
    if mutant:
        lines = file.read_text(encoding="utf-8").splitlines()
        span = slice(mutant.first - 1 + mutant.shift, mutant.last + mutant.shift)
        if lines[span] != mutant.lines(mutant.cell):
            sys.exit(f"{file} is out of step with its chapter: run make export")
        lines[span] = mutant.changed()
        (tree / file.relative_to(ROOT)).write_text("\n".join(lines) + "\n", encoding="utf-8")


def link(folder: Path, copied: Path, file: Path | None):
    "Make `copied` a folder of links to what `folder` holds, but for `file`."
    copied.mkdir()
    for p in folder.iterdir():
        if file and p.is_dir() and file.is_relative_to(p):
            link(p, copied / p.name, file)
        elif p != file and p.name != "__pycache__":
            (copied / p.name).symlink_to(p)


# ---- running ----


def import_libraries(path: Path):
    "Import what the chapter at `path` imports, but nothing of the package itself."
    for statement in imports(path):
        names = [getattr(statement, "module", None) or "", *(a.name for a in statement.names)]
        if not any(n.split(".")[0] == LIB.name for n in names[:2] if n):
            exec(ast.unparse(statement), {})  # noqa: S102


def in_child(path: Path, mutant: Mutant | None, folder: Path):
    "Run the cells of the chapter at `path` in this forked process; leave the result in `folder`."
    os.setsid()
    silence = os.open(folder / "printed", os.O_WRONLY | os.O_CREAT)
    os.dup2(silence, 1), os.dup2(silence, 2)
    tree = folder / "tree"
    tree.mkdir()
    tree_with(mutant, tree)
    os.environ.update(run_cells.environment(tree), PYTHONDONTWRITEBYTECODE="1")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    sys.dont_write_bytecode = True
    changed = {mutant.cell: mutant.source} if mutant else {}
    shell = run_cells.new_shell(path, tree)
    said, why = {}, ""
    for cell, outputs, error in run_cells.run(path, run_cells.skipped_flags(), changed, shell):
        said[cell["id"]] = run_cells.said(outputs)
        if error:
            why = f"{type(error).__name__}: {error}"
    (folder / "result.json").write_text(json.dumps(dict(said=said, why=why)))


class Child:
    "A forked process that runs the cells of a chapter with one change, or without any."

    def __init__(self, path: Path, mutant: Mutant | None):
        self.mutant, self.folder = mutant, Path(tempfile.mkdtemp(prefix="mutant-"))
        self.start = time.time()
        if not (pid := os.fork()):
            code = 1
            try:
                in_child(path, mutant, self.folder)
                code = 0
            finally:
                os._exit(code)
        self.pid = pid

    def result(self, timeout: float) -> dict | None:
        "What the process found, once it is done or has run for `timeout` seconds."
        late = time.time() - self.start > timeout
        if not late and not os.waitpid(self.pid, os.WNOHANG)[0]:
            return None
        if late:
            for p in [*psutil.Process(self.pid).children(recursive=True), psutil.Process(self.pid)]:
                p.send_signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
        file = self.folder / "result.json"
        found = json.loads(file.read_text()) if file.exists() else dict(said={}, why="crash")
        shutil.rmtree(self.folder, ignore_errors=True)
        return dict(found, mutant=self.mutant, late=late, seconds=time.time() - self.start)


def run_all(path: Path, todo: list, jobs: int, timeout: float):
    "Yield the result of each mutant in `todo`, `jobs` of them at a time."
    running, todo = [], list(todo)
    while todo or running:
        while todo and len(running) < jobs:
            running.append(Child(path, todo.pop(0)))
        time.sleep(0.1)
        for child in list(running):
            if found := child.result(timeout):
                running.remove(child)
                yield found


def fate(found: dict, right: dict) -> str:
    "How the mutant ended: by time, by an error, by an output other than the `right` one, or not."
    if found["late"]:
        return "time"
    if found["why"]:
        return "error"
    same = (run_cells.is_same(said, found["said"][cell]) for cell, said in right.items())
    return "survived" if all(same) else "output"


def right_outputs(path: Path, jobs: int) -> tuple[dict, float]:
    "What the unchanged chapter says, in those cells that say the same twice, and its seconds."
    first, second = run_all(path, [None, None], jobs, timeout=1800)
    if why := first["why"] or second["why"]:
        sys.exit(f"{path.relative_to(NBS)} fails without any change: {why}")
    varies = {c["id"] for c in cells(path) if "varies" in directives(c)}
    said = first["said"].items()
    same = {k: s for k, s in said if k not in varies and run_cells.is_same(s, second["said"][k])}
    return same, max(first["seconds"], second["seconds"])


def mutate(path: Path, n: int, seed: int, jobs: int):
    "Run a sample of `n` mutants of the chapter at `path` and print the survivors."
    every = list(mutants(path))
    sample = random.Random(f"{seed} {module(path)}").sample(range(len(every)), min(n, len(every)))
    import_libraries(path)
    right, seconds = right_outputs(path, jobs)
    ends, survivors = Counter(), []
    chosen = [every[i] for i in sorted(sample)]
    for found in run_all(path, chosen, jobs, timeout=30 + 3 * seconds):
        end = fate(found, right)
        ends[end] += 1
        survivors += [found["mutant"]] * (end == "survived")
        print(end[:1], end="", file=sys.stderr, flush=True)
    killed = ends.total() - ends["survived"]
    ways = ", ".join(f"{ends[k]} by {k}" for k in ("error", "output", "time"))
    print(
        f"\n{module(path)}: {killed} of {ends.total()} mutants killed ({ways}); {len(every)} exist"
    )
    for mutant in sorted(survivors, key=lambda m: m.first + m.shift):
        print(mutant)


def main():
    parser = argparse.ArgumentParser(description="Change the code of chapters and run their cells.")
    parser.add_argument("paths", nargs="*", type=Path, default=CHAPTERS, help="notebooks")
    parser.add_argument("-n", type=int, default=40, help="mutants of each chapter (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    args = parser.parse_args()
    os.environ.update(run_cells.environment())
    for path in args.paths:
        mutate(path.resolve(), args.n, args.seed, args.jobs)


if __name__ == "__main__":
    main()
