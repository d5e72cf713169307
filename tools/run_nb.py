"""Run notebooks in a real kernel and keep their outputs: `python tools/run_nb.py nbs/02_vq.ipynb`

A cell tagged `skip-execution` or starting with `#| eval: false` is left as it is, and so is one
that starts with `#| gpu` where there is no GPU. Run chapters really run."""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import run_cells
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
GPU = bool(shutil.which("nvidia-smi"))
eval_false = re.compile(r"^#\|\s*eval:\s*false\b" + ("" if GPU else r"|^#\|\s*gpu\b"), re.M)


def run(path: Path):
    "Execute the notebook at `path` with its own folder as working directory."
    nb = nbformat.read(path, 4)
    skipped = [c for c in nb.cells if c.cell_type == "code" and eval_false.search(c.source)]
    for c in skipped:
        c.metadata["tags"] = [*c.metadata.get("tags", []), "skip-execution"]
    where = {"metadata": {"path": str(path.resolve().parent)}}
    how = dict(timeout=None, kernel_name="python3", record_timing=False, resources=where)
    how |= dict(coalesce_streams=True)  # one output, however slowly it was printed
    try:
        NotebookClient(nb, **how).execute()
    except Exception:  # what was computed for minutes is worth a look
        nbformat.write(nb, Path(tempfile.gettempdir()) / f"failed-{path.name}")
        raise
    finally:
        for c in skipped:
            c.metadata["tags"].remove("skip-execution")
            if not c.metadata["tags"]:
                del c.metadata["tags"]
    for c in nb.cells:
        if c.cell_type == "code":
            c.execution_count = None
            # progress bars and other libraries' warnings are no part of the book
            c.outputs = [o for o in c.outputs if o.get("name") != "stderr"]
    nbformat.write(nb, path)
    run_cells.PROCESSOR.write_text(json.dumps(run_cells.processor(), indent=1) + "\n")


if __name__ == "__main__":
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    for path in map(Path, sys.argv[1:]):
        start = time.time()
        run(path)
        print(f"{path}: {time.time() - start:.1f} s")
