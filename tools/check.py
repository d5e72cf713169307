"""Every test of the repository, one line each: `python tools/check.py [WORD ...]`

With words, only the checks that have all of them in their name: `check.py smoke 06_train_llm
n_proc=2`, `check.py cells 02_vq`. Nothing is written into the working tree: what rewrites files
runs in a copy, which is then compared.

`--no-outputs` does not compare what the cells print with the committed outputs (other versions of
the libraries print other things); `--slow` runs the chapters that have slow cells with those, the
run chapters with the number of processes that is left out else, and nothing else."""

import argparse
import json
import os
import re
import sys
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import measure
import pages
import rules
import run_cells
import warm
from chapters import (
    CHAPTERS,
    LIB,
    MODULES,
    NBS,
    ROOT,
    cells,
    directives,
    is_run,
    module,
    module_file,
    parameters,
    title,
)
from shell import Failed, Skipped, copy, require, sh

# ---- what is built from them ----

GIT = "https://github.com/seed-nb/seed-nb/blob/main"


def docs():
    """The documentation site builds, with a page for every chapter, every paragraph of the chapter
    on it, no link that leads nowhere, and nothing that comes from another site."""
    with copy() as tree:
        sh(sys.executable, "tools/docs.py", cwd=tree)
        site = tree / "_docs"
        wanted = [(p, pages.page_of(p)) for p in CHAPTERS]
        require(f"no page {name}" for _, name in wanted if not (site / name).is_file())
        require(f"{chapter}: not on its page: {words}" for chapter, words in pages.lost(site))
        require(f"{page} links to {link}" for page, link in pages.dead_links(site))
        require(f"{file} fetches {link}" for file, link in pages.not_here(site))
        require(
            f"{chapter}: its page lacks {what}" for chapter, what in pages.unfinished(site, GIT)
        )


def links():
    "The links of README.md and its neighbours lead to files of the repository."
    require(f"{p.name} links to {link}" for p in pages.DOCUMENTS for link in pages.dead_files(p))


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


MEASURED = []  # the folder in which processes leave what they executed, if it is measured


def tested(path, *cmd, run=sh, **kw) -> str:
    """What `run` prints of `cmd`, which runs the chapter at `path`: its exported cells count as
    lines of the package, and an attempt to reach another machine fails."""
    with TemporaryDirectory() as tmp:
        log = Path(tmp) / "network"
        env = dict(run_cells.environment(), NO_NETWORK_LOG=str(log))
        env |= run_cells.follow_in_kernels(Path(tmp) / "ipython", path)
        for folder in MEASURED:
            env |= measure.environment(folder)
        out = run(*cmd, **env, **kw)
        require(log.read_text().splitlines() if log.exists() else [])
        return out


def chapter(path, *options):
    "Run the cells of a chapter and compare what they print; run chapters are left to `smoke`."
    if is_run(path):
        raise Skipped
    tested(path, warm.run_chapter, path, *options, run=warm.run)


def slow_chapter(path):
    "Run a chapter with its slow cells."
    timeout = 3 * 3600
    run = [sys.executable, ROOT / "tools/run_cells.py", path, "--flags", "slow", "--no-outputs"]
    tested(path, *run, timeout=timeout)


def notebook(folder, *made) -> Path:
    "A notebook in `folder` of code cells, `(source, what stands there as printed)` of each."
    cells = [
        dict(
            cell_type="code",
            id=f"c{i}",
            metadata={},
            source=source,
            outputs=[dict(output_type="stream", name="stdout", text=printed)],
        )
        for i, (source, printed) in enumerate(made)
    ]
    (folder / "made.ipynb").write_text(json.dumps(dict(cells=cells)), encoding="utf-8")
    return folder / "made.ipynb"


SHOWS = "print('loss 1.234, 17 right, 0.5 s')"
FETCH = """
import urllib.request
try:
    urllib.request.urlopen("http://192.0.2.1", timeout=1)
except Exception:
    print("offline")
"""
PROCESS = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {FETCH!r}])"
LOOPBACK = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
GOOD = [
    (SHOWS, "loss 1.235, 17 right, 2.1 s"),  # within the tolerance, and a time
    ("#| varies\n" + SHOWS, "loss 2"),
    ("#| slow\n1 / 0", ""),
    ("#| eval: false\n1 / 0", ""),
    (LOOPBACK, ""),
]
BAD = [
    (SHOWS, "loss 1.334, 17 right, 0.5 s"),
    (SHOWS, "loss 1.234, 18 right, 0.5 s"),
    (SHOWS, ""),
    ("1 / 0", ""),
    (FETCH, "offline"),
    (PROCESS, "offline"),
]


def runner():
    """The runner of the cells passes what is right, and fails for an output that is another one
    and for a connection, in the process of the chapter and in one that it starts."""
    with TemporaryDirectory() as tmp:
        chapter(notebook(Path(tmp), *GOOD), "--outputs")
        for source, printed in BAD:
            try:
                chapter(notebook(Path(tmp), (source, printed)), "--outputs")
            except Failed:
                continue
            raise Failed(f"this passes:\n{source}\nwith the output {printed!r}")


def papermill(path, tmp, ok=True, **kw) -> str:
    "Run the chapter at `path` in the folder `tmp` with the parameters in `kw`."
    values = [a for k, v in kw.items() for a in ("-p", k, v)]
    command = rules.BIN / "papermill", path, f"{tmp}/out.ipynb", "--no-progress-bar", *values
    return tested(path, *command, cwd=tmp, ok=ok)


def toy(path, tmp, **kw) -> dict:
    """The smallest parameters for the run chapter at `path`: of those we would like, the ones it
    has."""
    has = parameters(path)
    steps = {k: 2 for k in has if k == "steps" or k.endswith("_steps")}
    want = {"preset": "toy", "n_images": 4, "out_dir": f"{tmp}/out", **steps, **kw}
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


def tables(chapter, n_proc):
    "Papermill measures a toy model on a tiny folder of COCO."
    path = NBS / f"{chapter}.ipynb"
    with TemporaryDirectory() as tmp:
        warm.run(warm.tiny_coco, f"{tmp}/coco")
        coco = dict(data="coco", root=f"{tmp}/coco", n_proc=n_proc, only='["drawings"]')
        papermill(path, tmp, **(known := toy(path, tmp, **coco)))
        if "only" in known:
            found = json.loads(Path(tmp, "out/llm_coco.json").read_text(encoding="utf-8"))
            made = {"captions", "drawings"} & found.keys()
            require([f"drawings were asked for, made were {made}"] * (made != {"drawings"}))


# ---- the driver ----


MAIN = "06_train_llm"  # what most people run, so it is always tested with one process and with two
TABLES = "07_eval_tokenizer", "08_eval_llm"  # which `tables` runs with two processes


def smoke_checks(slow: bool) -> list[tuple]:
    """Pairs of name and function: the run chapters with one process or with two.

    What most of the second run would repeat is left to the `slow` ones."""
    checks = []
    for p in filter(is_run, CHAPTERS):
        counts = (1, 2) if "n_proc" in parameters(p) else (1,)
        quick = counts if title(p) == MAIN else (1 if title(p) in TABLES else counts[-1],)
        chosen = [n for n in counts if (n in quick) != slow]
        checks += [(f"smoke {title(p)} n_proc={n}", lambda p=p, n=n: smoke(p, n)) for n in chosen]
    return checks


def all_checks(compare: bool) -> list[tuple]:
    "Pairs of name and function, cheap ones first."
    checks = [(f.__name__, f) for f in (*rules.ALL, runner, docs, links, wheel)]
    options = () if compare else ("--no-outputs",)
    checks += [(f"cells {title(p)}", lambda p=p: chapter(p, *options)) for p in CHAPTERS]
    checks += smoke_checks(slow=False)
    # every run chapter calls check_parameters first (`params`), so one of them proves it
    checks.append(("unknown 06_train_llm", lambda: unknown(NBS / "06_train_llm.ipynb")))
    for c in TABLES:
        checks.append((f"tables {c} n_proc=2", lambda c=c: tables(c, 2)))
    return checks


def slow_checks() -> list[tuple]:
    "Pairs of name and function: the chapters that have slow cells, and the other smoke tests."
    plain = [p for p in CHAPTERS if not is_run(p)]
    slow = [p for p in plain if any("slow" in directives(c) for c in cells(p))]
    checks = [(f"slow {title(p)}", lambda p=p: slow_chapter(p)) for p in slow]
    return checks + smoke_checks(slow=True)


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


def coverage(found):
    "Enough of the package is executed by its tests."
    print(measure.line(found))
    short = measure.percent(found["totals"]) < measure.FLOOR
    require([f"less than {measure.FLOOR} % of the package is executed"] * short)


def exercised(found):
    "Every public function and method of the package is executed by some test."
    require(measure.not_exercised(found))


CELLS = "cells", "smoke"  # what runs chapters


def show_missing(found, names):
    "Print which lines of the modules of those chapters were not executed that `names` ran."
    ran = {name.split()[1] for name in names if name.startswith(CELLS)}
    for p in CHAPTERS:
        if title(p) in ran and module(p):
            file = found["files"][module_file(p).relative_to(LIB).as_posix()]
            share = measure.percent(file["summary"])
            print(f"{module(p)}: {share:.0f} % executed; not: {measure.missing(file)}")


def options():
    "What the command line asks for."
    parser = argparse.ArgumentParser(description="Run the tests.")
    parser.add_argument("words", nargs="*", help="run the tests with all of these in their name")
    parser.add_argument("--no-outputs", action="store_true", help="do not compare the outputs")
    parser.add_argument("--slow", action="store_true", help="run the chapters with slow cells")
    return parser.parse_args()


def main():
    args = options()
    every = slow_checks() if args.slow else all_checks(compare=not args.no_outputs)
    checks = [(name, f) for name, f in every if all(w in name for w in args.words)]
    if not checks:
        sys.exit(f"no check has all of {args.words} in its name")
    with TemporaryDirectory() as tmp:
        if measures := not args.slow and any(name.startswith(CELLS) for name, _ in checks):
            MEASURED.append(Path(tmp))
        results = list(run_all(checks))
        if measures and any(Path(tmp).iterdir()):
            found = measure.measured(Path(tmp))
            show_missing(found, [name for name, _ in checks] if args.words else [])
            if len(checks) == len(every):
                whole = [("coverage", coverage), ("exercised", exercised)]
                results += run_all([(name, lambda f=f: f(found)) for name, f in whole])
    summary(results)


def run_all(checks):
    "Run `checks`, two at a time; yield name, status and seconds of each, in order."
    with ThreadPoolExecutor(min(2, os.cpu_count())) as pool:
        for name, result in [(name, pool.submit(outcome, f)) for name, f in checks]:
            status, seconds, why = result.result()
            report(name, status, seconds, why)
            yield name, status, seconds


def summary(results):
    "Print the slowest checks and how many passed, and exit with 1 if one failed."
    slow = sorted(results, key=lambda r: r[2], reverse=True)[:10]
    print("the slowest: " + ", ".join(f"{name} {seconds:.0f} s" for name, _, seconds in slow))
    count = Counter(status for _, status, _ in results)
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"{count['ok']} passed, {count['FAILED']} failed{skipped}")
    sys.exit(count["FAILED"] > 0)


if __name__ == "__main__":
    main()
