"""How a check says that it failed, and how it runs commands."""

import difflib
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import run_cells
from chapters import ROOT

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
    env = {**os.environ, **run_cells.FRESH, "PYTHONPATH": str(cwd), **env}
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
