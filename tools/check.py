"""Every test of the repository, one line each: `python tools/check.py [WORD ...]`

With words, only the checks that have all of them in their name: `check.py smoke 06_train_llm
n_proc=2`, `check.py cells 02_vq`. Nothing is written into the working tree: what rewrites files
runs in a copy, which is then compared."""

import ast
import difflib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
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
    parameters,
    public_functions,
    tagged,
    text,
    title,
)

BIN = Path(sys.executable).parent
LOCAL = (
    ".git .venv runs _docs _proc build *.egg-info __pycache__ .ipynb_checkpoints .ruff_cache"
).split()


class Failed(Exception):
    "A check failed; the text says why."


class Skipped(Exception):
    "Nothing to check."


def require(problems):
    "Fail with a line for each of `problems`, if there are any."
    if problems := list(problems):
        raise Failed("\n".join(problems))


def sh(*cmd, cwd=ROOT, timeout=600, ok=True, **env) -> str:
    """The output of `cmd`.

    `Failed` if it exits otherwise than `ok` says or is not done in `timeout` seconds."""
    fixed = dict(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    env = {**os.environ, **fixed, "PYTHONPATH": str(cwd), **env}
    pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    proc = subprocess.Popen(
        [str(c) for c in cmd], cwd=cwd, env=env, text=True, errors="replace", **pipes
    )
    try:
        out, _ = proc.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # ranks and kernels are in sessions of their own, and would outlive their parent
        for p in [*psutil.Process(proc.pid).children(recursive=True), proc]:
            p.kill()
        raise Failed(f"{proc.communicate()[0]}\nnot done after {timeout} s") from None
    if (proc.returncode == 0) != ok:
        raise Failed(f"{out}\nexit code {proc.returncode}")
    return out


@contextmanager
def copy():
    "A copy of the working tree, without what is local to this machine."
    with TemporaryDirectory() as tmp:
        yield Path(shutil.copytree(ROOT, Path(tmp) / "repo", ignore=shutil.ignore_patterns(*LOCAL)))


def same(tree, *patterns):
    """Fail unless the files that match `patterns` are, byte by byte, the same in `tree` as in
    the working tree."""

    def files(root):
        return {str(p.relative_to(root)): p.read_bytes() for g in patterns for p in root.glob(g)}

    old, new = files(ROOT), files(tree)
    lines = []
    for f in sorted(old.keys() | new.keys()):
        if old.get(f) == new.get(f):
            continue
        a, b = (d.get(f, b"").decode(errors="replace").splitlines() for d in (old, new))
        diff = list(difflib.unified_diff(a, b, "is", "should be", lineterm="", n=1))
        lines += [f"{f} is out of step:", *diff[:15]]
    require(lines)


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


def size():
    "No notebook is larger than 1.5 MB."
    sizes = ((title(p), p.stat().st_size / 1e6) for p in CHAPTERS)
    require(f"{name}: {mb:.1f} MB" for name, mb in sizes if mb > 1.5)


# ---- the rules of the house ----


def within_folders():
    """Rule 1: inside a folder the order of the files is the order of import, and nothing is
    imported by star."""
    problems = []
    for d in (*FOLDERS, "."):
        chapters = sorted((NBS / d).glob("[!_.]*.ipynb"))
        at = {m: i for i, p in enumerate(chapters) if (m := module(p))}
        for i, p in enumerate(chapters):
            wrong = {m for m in imports_of(p) if m == "*" or at.get(m, -1) >= i}
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
    """Rule 3: what a model chapter exports imports of the engine configs, images and files only,
    and no world."""
    story = {
        m for p in CHAPTERS if p.parent == NBS and MODEL_CHAPTER.match(p.name) if (m := module(p))
    }
    helpers = {f"seed_nb.engine.{m}" for m in ("config", "images", "files")}
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


def params():
    "A run chapter has exactly one `parameters` cell, of plain literals; the others have none."
    for p in CHAPTERS:
        if (n := len(tagged(p))) != is_run(p):
            raise Failed(f"{title(p)}: {n} cells are tagged `parameters`")
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
    "Words for what is unsafe about this node of a syntax tree, if anything."
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = {a.name.split(".")[0] for a in node.names}
        names |= {(getattr(node, "module", "") or "").split(".")[0]}
        return sorted(names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"})
    if not isinstance(node, ast.Call):
        return []
    name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name in {"eval", "exec", "os.system"}:
        return [name]
    if name == "torch.load" and given.get("weights_only") != "True":
        return ["torch.load of any object"]
    bad = dict(trust_remote_code="True", shell="True", allow_pickle="True", strict="False")
    wrong = [
        k for k, v in given.items() if bad.get(k) == v and not (k == "strict" and name == "zip")
    ]
    return [f"{k}={bad[k]}" for k in wrong]


def security():
    """Nothing unpickles, evaluates text, runs a shell or foreign code, or loads weights that do
    not fit."""
    found = (
        (p, node.lineno, what)
        for p in MODULES
        for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
        if (what := ", ".join(unsafe(node)))
    )
    require(f"{p.relative_to(LIB)}:{line}: {what}" for p, line, what in found)


# ---- what is built from them ----


def docs():
    "The documentation site builds, with a page for every chapter."
    with copy() as tree:
        sh(sys.executable, "tools/docs.py", cwd=tree)
        pages = {p.relative_to(tree / "_docs").as_posix() for p in (tree / "_docs").rglob("*.html")}
        wanted = (re.sub(r"(^|/)\d+[a-z]*_", r"\1", title(p)) for p in CHAPTERS)
        require(f"no page {name}.html" for name in wanted if f"{name}.html" not in pages)
        require(f"{page} links to {link}" for page, link in dead_links(tree / "_docs", pages))


def dead_links(site, pages):
    "Pairs of a page and a link on it that leads to no page of the site."
    for page in sorted(pages):
        html = (site / page).read_text(encoding="utf-8")
        for link in re.findall(r'href="([^":#?]+\.(?:html|ipynb))[#"]', html):
            if not ((site / page).parent / link).resolve().is_file():
                yield page, link


def wheel():
    """The wheel holds every file of the package, and works where neither the repo nor its
    settings are."""
    with copy() as tree, TemporaryDirectory() as tmp:
        site = Path(tmp) / "site"
        sh(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp, tree)
        (whl,) = Path(tmp).glob("*.whl")
        shipped = set(zipfile.ZipFile(whl).namelist())
        files = [
            p.relative_to(tree).as_posix() for p in (tree / "seed_nb").rglob("*") if p.is_file()
        ]
        require(f"not in the wheel: {f}" for f in files if f not in shipped)
        require(["no NOTICE in the wheel"] * (not any(f.endswith("/NOTICE") for f in shipped)))
        sh(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, whl)
        modules = ", ".join(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES)
        code = f"import {modules}; assert seed_nb.__file__.startswith({str(site)!r})"
        sh(sys.executable, "-c", code, cwd=tmp, PYTHONPATH=str(site))
        sh(site / "bin/seed-nb", "--help", cwd=tmp, PYTHONPATH=str(site))


# ---- the chapters run ----


def run_cells(path):
    "Run the cells of a chapter as nbdev_test does; run chapters are left to `smoke`."
    if is_run(path):
        raise Skipped
    sh(BIN / "nbdev_test", "--path", path)


def papermill(path, tmp, ok=True, **kw) -> str:
    "Run the chapter at `path` in the folder `tmp` with the parameters in `kw`."
    values = [a for k, v in kw.items() for a in ("-p", k, v)]
    command = BIN / "papermill", path, f"{tmp}/out.ipynb", "--no-progress-bar", *values
    return sh(*command, cwd=tmp, ok=ok, PYTHONPATH=str(ROOT))


def toy(path, tmp, **kw) -> dict:
    """The smallest parameters for the run chapter at `path`: of those we would like, the ones it
    has."""
    has = parameters(path)
    steps = {k: 2 for k in has if k == "steps" or k.endswith("_steps")}
    want = {"preset": "toy", "out_dir": f"{tmp}/out", **steps, **kw}
    return {k: v for k, v in want.items() if k in has}


def smoke(path, n_proc):
    "Papermill runs the chapter from another folder, two steps at toy size."
    with TemporaryDirectory() as tmp:
        papermill(path, tmp, **toy(path, tmp, n_proc=n_proc))


def unknown(path):
    "A misspelt parameter fails; papermill alone would only warn."
    with TemporaryDirectory() as tmp:
        out = papermill(path, tmp, ok=False, **toy(path, tmp), no_such_name=1)
        if not re.search(r"Error\b.*no_such_name", out):
            raise Failed(out)


# ---- the driver ----


def all_checks() -> list[tuple]:
    "Pairs of name and function, cheap ones first."
    step, built = (clean, export, readme, size), (docs, wheel)
    rules = (within_folders, engine_alone, models_alone, no_circle, light, names, hints, openings)
    checks = [(f.__name__, f) for f in (*step, *rules, params, ruff, security, *built)]
    checks += [(f"cells {title(p)}", lambda p=p: run_cells(p)) for p in CHAPTERS]
    for p in filter(is_run, CHAPTERS):
        counts = (1, 2) if "n_proc" in parameters(p) else (1,)
        checks += [(f"smoke {title(p)} n_proc={n}", lambda p=p, n=n: smoke(p, n)) for n in counts]
        checks.append((f"unknown {title(p)}", lambda p=p: unknown(p)))
    return checks


def outcome(check) -> tuple:
    "(status, seconds, why) of one check."
    start = time.time()
    status, why = "ok", ""
    try:
        check()
    except Skipped:
        status = "skipped"
    except Exception as e:
        status, why = "FAILED", str(e) if isinstance(e, Failed) else repr(e)
    return status, time.time() - start, why


def report(name, status, seconds, why):
    "Print the line of a check, and below it what failed."
    print(f"{status:8}{seconds:6.1f} s  {name}", flush=True)
    if why:
        print("\n".join("    " + line for line in why.splitlines()[-40:]), flush=True)


def main(words):
    checks = [(name, f) for name, f in all_checks() if all(w in name for w in words)]
    if not checks:
        sys.exit(f"no check has all of {words} in its name")
    count, times = dict.fromkeys(["ok", "FAILED", "skipped"], 0), {}
    with ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        for name, result in [(name, pool.submit(outcome, f)) for name, f in checks]:
            status, seconds, why = result.result()
            count[status], times[name] = count[status] + 1, seconds
            report(name, status, seconds, why)
    slow = sorted(times, key=times.get, reverse=True)[:10]
    print("the slowest: " + ", ".join(f"{name} {times[name]:.0f} s" for name in slow))
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['ok']} passed, {count['FAILED']} failed{skipped}")
    sys.exit(count["FAILED"] > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
