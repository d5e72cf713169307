"""Every test of the repository, one line each: `python tools/check.py [WORD ...]`

With words, only the checks that have one of them in their name: `check.py smoke`, `check.py docs 02_vq`.
Nothing is written into the working tree: what rewrites files runs in a copy, which is then compared."""

import ast, difflib, json, os, re, shutil, subprocess, sys, time, zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LIB = ROOT / "seed_nb"
CHAPTERS = sorted(
    (ROOT / "nbs").glob("[!_.]*.ipynb")
)  # file order is reading order is import order
MODULES = sorted(LIB.glob("*.py"))
LOCAL = ".git .venv runs _docs _proc build *.egg-info __pycache__ .ipynb_checkpoints .ruff_cache".split()


class Failed(Exception):
    "A check failed; the text says why."


class Skipped(Exception):
    "Nothing to check."


def require(problems):
    "Fail with a line for each of `problems`, if there are any."
    if problems := list(problems):
        raise Failed("\n".join(problems))


def sh(*cmd, cwd=ROOT, timeout=600, ok=True, **env):
    "The output of `cmd`; `Failed` if it exits otherwise than `ok` says or is not done in `timeout` seconds."
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(cwd),
        **env,
    }
    proc = subprocess.Popen(
        [str(c) for c in cmd],
        cwd=cwd,
        env=env,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        out, _ = proc.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # ranks and kernels are in sessions of their own, and would outlive their parent
        for p in [*psutil.Process(proc.pid).children(recursive=True), proc]:
            p.kill()
        raise Failed(f"{proc.communicate()[0]}\nnot done after {timeout} s")
    if (proc.returncode == 0) != ok:
        raise Failed(f"{out}\nexit code {proc.returncode}")
    return out


@contextmanager
def copy():
    "A copy of the working tree, without what is local to this machine."
    with TemporaryDirectory() as tmp:
        yield Path(shutil.copytree(ROOT, Path(tmp) / "repo", ignore=shutil.ignore_patterns(*LOCAL)))


def same(tree, *patterns):
    "Fail unless the files that match `patterns` are, byte by byte, the same in `tree` as in the working tree."

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


def cells(path, kind="code"):
    "The cells of the notebook at `path` that are of this `kind`."
    return [
        c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind
    ]


def python(cell):
    return re.sub(r"^\s*[%!].*$", "pass", "".join(cell["source"]), flags=re.M)


def is_run(path):
    return any("skip_exec: true" in "".join(c["source"]) for c in cells(path, "raw"))


def tagged(path):
    return [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]


def parameters(path):
    "Statements of the parameters cell of the chapter at `path`, by the name they assign to."
    body = ast.parse("\n".join(map(python, tagged(path)))).body
    return {ast.unparse(s).partition(" = ")[0]: s for s in body}


def is_literal(statement):
    "Whether the right side of this assignment is a plain literal."
    try:
        ast.literal_eval(statement.value)
    except (ValueError, AttributeError):
        return False
    return True


# ---- one function, one check ----


def clean():
    "Notebooks are as nbdev_clean leaves them."
    with copy() as tree:
        sh(BIN / "nbdev_clean", cwd=tree)
        same(tree, "nbs/*.ipynb")


def export():
    "The package is what the notebooks export, no module more."
    with copy() as tree:
        for p in tree.glob("seed_nb/*.py"):
            if p.name != "__init__.py":
                p.unlink()
        sh(BIN / "nbdev_export", cwd=tree)
        same(tree, "seed_nb/*.py")


def readme():
    "README.md is what tools/readme.py makes of the front page."
    with copy() as tree:
        sh(sys.executable, "tools/readme.py", cwd=tree)
        same(tree, "README.md", "nbs/images/*")


def size():
    "No notebook is larger than 1.5 MB."
    require(
        f"{p.name}: {p.stat().st_size / 1e6:.1f} MB" for p in CHAPTERS if p.stat().st_size > 1.5e6
    )


def params():
    "A run chapter has exactly one `parameters` cell, of plain literals; the others have none."
    for p in CHAPTERS:
        if (n := len(tagged(p))) != is_run(p):
            raise Failed(f"{p.name}: {n} cells are tagged `parameters`")
        require(
            f"{p.name}: {k} is no plain literal"
            for k, s in parameters(p).items()
            if not is_literal(s)
        )


def imported(source):
    "Modules of the package, and stars, that `source` imports."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("seed_nb."))
        if isinstance(node, ast.ImportFrom) and (
            node.level or node.module.split(".")[0] == "seed_nb"
        ):
            module = (node.module or "").removeprefix("seed_nb").lstrip(".")
            yield from (
                [f"seed_nb.{module}"] if module else (f"seed_nb.{a.name}" for a in node.names)
            )
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            yield "*"


def order():
    "A chapter, its cells as well as its module, imports only from earlier chapters, and nothing by star."
    earlier, problems = set(), []
    for p in CHAPTERS:
        name = re.search(r"^#\| default_exp (\w+)", "\n".join(map(python, cells(p))), re.M)
        sources = list(map(python, cells(p)))
        if name:
            sources.append((LIB / f"{name[1]}.py").read_text(encoding="utf-8"))
        wrong = {m for s in sources for m in imported(s)} - earlier
        problems += [f"{p.name} imports {m}" for m in sorted(wrong)]
        if name:
            earlier.add(f"seed_nb.{name[1]}")
    require(problems)


def ruff():
    "No undefined and no redefined names: a module must not lean on what only its notebook knows."
    sh(BIN / "ruff", "check", "--isolated", "--no-cache", "--select", "F821,F811", "seed_nb", "nbs")


def unsafe(node):
    "Words for what is unsafe about this node of a syntax tree, if anything."
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = {a.name.split(".")[0] for a in node.names} | {
            (getattr(node, "module", "") or "").split(".")[0]
        }
        return sorted(names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"})
    if not isinstance(node, ast.Call):
        return []
    name, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name in {"eval", "exec", "os.system"}:
        return [name]
    if name == "torch.load" and given.get("weights_only") != "True":
        return ["torch.load of any object"]
    bad = {"trust_remote_code": "True", "shell": "True", "allow_pickle": "True", "strict": "False"}
    return [
        f"{k}={v}"
        for k, v in given.items()
        if bad.get(k) == v and not (k == "strict" and name == "zip")
    ]


def security():
    "Nothing unpickles, evaluates text, runs a shell or foreign code, or loads weights that do not fit."
    require(
        f"{p.name}:{node.lineno}: {what}"
        for p in MODULES
        for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
        if (what := ", ".join(unsafe(node)))
    )


def docs():
    "The documentation site builds, with a page for every chapter."
    with copy() as tree:
        sh(sys.executable, "tools/docs.py", cwd=tree)
        pages = {p.stem for p in (tree / "_docs").glob("*.html")}
        missing = [p.stem for p in CHAPTERS if re.sub(r"^\d+[a-z]*_", "", p.stem) not in pages]
        require(f"no page for {m}" for m in missing)


def wheel():
    "The wheel holds every file of the package, and works where neither the repo nor its settings are."
    with copy() as tree, TemporaryDirectory() as tmp:
        site = Path(tmp) / "site"
        sh(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp, tree)
        (whl,) = Path(tmp).glob("*.whl")
        shipped = set(zipfile.ZipFile(whl).namelist())
        files = [
            p.relative_to(tree).as_posix() for p in (tree / "seed_nb").rglob("*") if p.is_file()
        ]
        require(f"not in the wheel: {f}" for f in files if f not in shipped)
        sh(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, whl)
        modules = ", ".join(f"seed_nb.{p.stem}" for p in MODULES if p.stem != "__init__")
        sh(
            sys.executable,
            "-c",
            f"import {modules}; assert seed_nb.__file__.startswith({str(site)!r})",
            cwd=tmp,
            PYTHONPATH=str(site),
        )
        sh(site / "bin/seed-nb", "--help", cwd=tmp, PYTHONPATH=str(site))


def run_cells(path):
    "Run the cells of a chapter as nbdev_test does; run chapters are left to `smoke`."
    if is_run(path):
        raise Skipped
    sh(BIN / "nbdev_test", "--path", path)


def papermill(path, tmp, ok=True, **kw):
    "Run the chapter at `path` in the folder `tmp` with the parameters in `kw`."
    values = [a for k, v in kw.items() for a in ("-p", k, v)]
    return sh(
        BIN / "papermill",
        path,
        f"{tmp}/out.ipynb",
        "--no-progress-bar",
        *values,
        cwd=tmp,
        ok=ok,
        PYTHONPATH=str(ROOT),
    )


def toy(path, tmp, **kw):
    "The smallest parameters for the run chapter at `path`: of those we would like, the ones it has."
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


def all_checks():
    "Pairs of name and function, cheap ones first."
    whole = clean, export, readme, size, params, order, ruff, security, docs, wheel
    checks = [(f.__name__, f) for f in whole]
    checks += [(f"cells {p.stem}", lambda p=p: run_cells(p)) for p in CHAPTERS]
    for p in filter(is_run, CHAPTERS):
        counts = (1, 2) if "n_proc" in parameters(p) else (1,)
        checks += [(f"smoke {p.stem} n_proc={n}", lambda p=p, n=n: smoke(p, n)) for n in counts]
        checks.append((f"unknown {p.stem}", lambda p=p: unknown(p)))
    return checks


def outcome(check):
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


def main(words):
    checks = [(name, f) for name, f in all_checks() if not words or set(words) & set(name.split())]
    if not checks:
        sys.exit(f"no check has any of {words} in its name")
    count = dict.fromkeys(["ok", "FAILED", "skipped"], 0)
    with ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        for name, result in [(name, pool.submit(outcome, f)) for name, f in checks]:
            status, seconds, why = result.result()
            count[status] += 1
            print(f"{status:8}{seconds:6.1f} s  {name}", flush=True)
            if why:
                print("\n".join("    " + line for line in why.splitlines()[-40:]), flush=True)
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['ok']} passed, {count['FAILED']} failed{skipped}")
    sys.exit(count["FAILED"] > 0)


if __name__ == "__main__":
    main(sys.argv[1:])
