"""Processes that begin with the large libraries imported: a server of `multiprocessing` imports
them once, and what is to run, runs in a process forked from it.

The server imports nothing of seed_nb, so a chapter meets the package as a fresh process does."""

import atexit
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile

import psutil
import run_cells
from chapters import ROOT
from shell import Failed

LIBRARIES = """coverage psutil nbformat torch torch.distributed.checkpoint torch.distributed.fsdp
transformers.modeling_utils transformers.generation.utils diffusers.pipelines diffusers.models peft
accelerate datasets pandas safetensors.torch matplotlib.pyplot IPython execnb.shell
fastcore.test""".split()
FORKED = get_context("forkserver")
FORKED.set_forkserver_preload(LIBRARIES)


def run_chapter(*arguments):
    "What `python tools/run_cells.py *arguments` does."
    sys.argv = [run_cells.__file__, *map(str, arguments)]
    run_cells.main()


def tiny_coco(folder):
    "Write the smallest folder of COCO."
    from seed_nb.standard_sets import tiny_set

    tiny_set("coco", folder)


def work(function, arguments, env: dict[str, str], out: str):
    "In the forked process: call `function`, with what it prints in the file `out`."
    os.environ.update(env)
    sys.path[:0] = [str(run_cells.STARTUP), str(ROOT)]
    file = os.open(out, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        if "COVERAGE_PROCESS_START" in env:
            import coverage
            import sitecustomize

            sys.meta_path.insert(0, sitecustomize.Untraced())
            coverage.process_startup()
        function(*arguments)
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out


def run(function, *arguments, timeout: float = 600, **env: str) -> str:
    """What `function(*arguments)` prints in a forked process, whose environment has `env`.

    `Failed` if it fails or is not done in `timeout` seconds."""
    os.environ.update(run_cells.environment())  # of the server, too, if it is started now
    with NamedTemporaryFile() as out:
        job = FORKED.Process(target=work, args=(function, arguments, env, out.name))
        job.start()
        job.join(timeout)
        late = job.exitcode is None
        if late:  # ranks are in sessions of their own, and would outlive their parent
            for p in [*psutil.Process(job.pid).children(recursive=True), job]:
                p.kill()
            job.join()
        printed = Path(out.name).read_text(errors="replace")
    if job.exitcode:
        why = f"not done after {timeout} s" if late else f"exit code {job.exitcode}"
        raise Failed(f"{printed}\n{why}")
    return printed
