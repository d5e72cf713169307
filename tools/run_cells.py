"""Run the cells of a plain chapter and compare what they print with the outputs that stand in it:
`python tools/run_cells.py nbs/02_vq.ipynb`, with `--flags slow` for the slow cells, too.

The cells run as nbdev_test runs them: in an IPython shell of this process, in the folder of the
chapter, without those that begin with `#| eval: false` or with a flag of `tst_flags` in
settings.ini. Beside that,

* an exported cell is compiled under the name and the lines of the file that it is exported to, so
  that coverage.py counts a chapter's own functions;
* no connection leaves the machine (tools/startup);
* what a cell prints is compared with what the chapter shows. A cell whose output is another one
  on every machine or at every run begins with `#| varies`. What small trainings print depends on
  the processor, so on another kind than that of the outputs nothing is compared."""

import argparse
import ast
import base64
import configparser
import difflib
import json
import os
import re
import struct
import sys
import tempfile
import traceback
from pathlib import Path

from chapters import NBS, ROOT, cells, directives, is_run, places, text

STARTUP = ROOT / "tools" / "startup"
PROCESSOR = NBS / "data" / "processor.json"
FRESH = dict(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")


def environment(tree: Path = ROOT) -> dict[str, str]:
    "What a test adds to the environment: one thread, no network, the package of `tree`."
    return {**FRESH, "PYTHONPATH": os.pathsep.join([str(STARTUP), str(tree)])}


# ---- the lines of the package ----


def follow(shell, table: dict[str, tuple[str, int]]):
    """Let `shell` compile the cells in `table` (see `places`) under the name and the lines of the
    file they are exported to."""
    compiler, shift = shell.compile, {}
    cache, parse = compiler.cache, compiler.ast_parse

    def cache_there(code, number=0, raw_code=None):
        shift.clear()
        if place := table.get(raw_code or code):
            shift[place[0]] = place[1]
        return place[0] if place else cache(code, number, raw_code)

    def parse_there(source, filename="<unknown>", symbol="exec"):
        return ast.increment_lineno(parse(source, filename, symbol), shift.get(filename, 0))

    compiler.cache, compiler.ast_parse = cache_there, parse_there


def follow_in_kernels(folder: Path, path: Path) -> dict[str, str]:
    """The environment in which a Jupyter kernel does the same for the chapter at `path`; `folder`
    becomes its IPython directory."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    code = f"""import sys
sys.path.append({str(ROOT / "tools")!r})
from pathlib import Path as _Path
import chapters as _chapters, run_cells as _run_cells
_run_cells.follow(get_ipython(), _chapters.places(_Path({str(path)!r})))
sys.path.remove({str(ROOT / "tools")!r})
"""
    (startup / "00-lines.py").write_text(code, encoding="utf-8")
    return {"IPYTHONDIR": str(folder)}


# ---- the shell ----


class Printed:
    """What this process and those that it starts write to the standard output.

    `sys.stdout` stays the same object, as it does in a kernel: a handler of a log may keep it."""

    def __init__(self):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.stdout, self.seen = os.dup(1), 0
        sys.stdout.flush()
        sys.stdout.reconfigure(line_buffering=True)
        os.dup2(self.file.fileno(), 1)

    def new(self) -> str:
        "The text since the last call."
        sys.stdout.flush()
        end = os.fstat(self.file.fileno()).st_size
        found = os.pread(self.file.fileno(), end - self.seen, self.seen)
        self.seen = end
        return found.decode(errors="replace")

    def close(self):
        sys.stdout.flush()
        os.dup2(self.stdout, 1)


def skipped_flags() -> set[str]:
    "`tst_flags` of settings.ini: the cells of these flags are left out of the tests."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini")
    return set(settings["DEFAULT"]["tst_flags"].split())


def is_left_out(cell: dict, flags: set[str]) -> bool:
    "Whether a code cell does not run: it has one of `flags`, or is not to be evaluated."
    found = directives(cell)
    return found.get("eval", "").lower() == "false" or bool(flags & found.keys())


def new_shell(path: Path, tree: Path = ROOT):
    """An IPython shell in the folder of the chapter at `path`, with the pictures of a kernel and
    the package of `tree`."""
    from execnb.shell import CaptureShell

    os.environ["IN_TEST"] = "1"
    sys.path.insert(0, str(tree))
    os.chdir(path.parent)
    shell = CaptureShell(path, mpl_format="png")
    shell.kernel = True  # a training shows one line that it renews, as in a notebook
    return shell


def stream(printed: str) -> dict:
    "The output of a cell that `printed` this."
    return dict(output_type="stream", name="stdout", text=printed)


def displayed(shell, done, source: str) -> list[dict]:
    "What a cell displayed, and the value of its last line, as outputs of a notebook."
    outputs, at = [], {}
    for x in done.display_objects:
        name = (x.transient or {}).get("display_id")
        if x.update and name in at:
            at[name]["data"] = x.data
        else:
            at[name] = dict(output_type="display_data", data=x.data)
            outputs.append(at[name])
    value = done.result.result
    if value is not None and not source.rstrip().endswith(";"):
        data, _ = shell.display_formatter.format(value)
        outputs.append(dict(output_type="execute_result", data=data))
    return outputs


def run(path: Path, flags: set[str], changed: dict[str, str] | None = None, shell=None):
    """Run the cells of the chapter at `path` that have none of `flags`.

    Yields `(cell, outputs, error)` of each; the last one is the first that fails. `changed` cells,
    by their source, run with another source."""
    shell, printed = shell or new_shell(path), Printed()
    follow(shell, {} if changed else places(path))
    try:
        for cell in cells(path):
            if is_left_out(cell, flags):
                continue
            source = (changed or {}).get(text(cell), text(cell))
            done = shell.run_cell(source, stdout=False)
            yield cell, [stream(printed.new()), *displayed(shell, done, source)], done.exception
            if done.exception:
                break
    finally:
        printed.close()


# ---- what they print ----

# What is different on every machine and in every run is masked, in this order.
NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
MASKS = [
    (re.escape(sys.executable), "python"),
    (re.escape(str(ROOT)), "ROOT"),
    (rf"(?:{re.escape(tempfile.gettempdir())}|/tmp)/[^\s'\"),;\]]*", "TEMPORARY"),
    (r"\btmp[a-z0-9_]{8}\b", "TEMPORARY"),
    (r"\b0x[0-9a-f]{6,}\b", "ADDRESS"),
    (rf"{NUMBER} ?(?:ns|us|µs|ms|s|sec|seconds?|min|minutes?|h|hours?)\b", "TIME"),
    (rf"{NUMBER} ?(?:[kKMGT]i?B|bytes)\b", "SIZE"),
    (rf"{NUMBER}( \w+)? ?(?:/ ?s\b|per second|a second)", "RATE"),
    (r"\b\d+:\d\d:\d\d\b", "TIME"),
    # of a training's line
    (rf" waiting {NUMBER}%", ""),
    (rf"{NUMBER}% of peak", "PEAK"),
]
# A number with a point may differ by this share, or by two units of its last place; what is below
# RESIDUE is taken for what rounding leaves, of which only the order of magnitude is compared.
TOLERANCE, RESIDUE = 0.02, 1e-4
POINT = re.compile(r"(?<![\w.])-?\d+\.\d*(?:e[-+]?\d+)?|(?<![\w.])-?\d+e-?\d+")


def masked(printed: str) -> str:
    "`printed` without what changes from run to run, and with single spaces."
    for pattern, name in MASKS:
        printed = re.sub(pattern, name, printed)
    lines = (" ".join(line.split()) for line in printed.splitlines())
    return "\n".join(filter(None, lines))


def picture(png: str | list | bytes) -> str:
    "A word for a PNG picture, in base64 or as it is: its size."
    data = png if isinstance(png, bytes) else base64.b64decode("".join(png))
    width, height = struct.unpack(">II", data[16:24])
    return f"a picture of {width}. x {height}. pixels"


def shown(output: dict) -> str:
    "An output other than a stream, as text."
    data = output.get("data", {})
    if "image/png" in data:
        return picture(data["image/png"])
    plain = "".join(data.get("text/plain", ""))
    rich = next((k for k in ("text/markdown", "text/html", "text/latex") if k in data), None)
    return "".join(data[rich]) if rich and "IPython.core.display" in plain else plain


def said(outputs: list[dict]) -> str:
    "What `outputs` say, as text to compare: what was printed, then what was shown."
    streams = [o for o in outputs if o["output_type"] == "stream" and o["name"] == "stdout"]
    others = [o for o in outputs if o["output_type"] in ("display_data", "execute_result")]
    printed = "".join("".join(o["text"]) for o in streams)
    return masked("\n".join([printed, *map(shown, others)]))


def is_close(a: str, b: str) -> bool:
    "Whether two numbers with a point are the same within `TOLERANCE`."
    digits = max(len(x.partition(".")[2]) for x in (a, b))
    last = 0 if "e" in a + b else 10.0**-digits
    small, large = sorted((abs(float(a)), abs(float(b))))
    if large < RESIDUE:
        return large <= 10 * small
    return abs(float(a) - float(b)) <= max(2.001 * last, TOLERANCE * large)


def is_same(a: str, b: str) -> bool:
    "Whether two texts are the same but for the tolerance of their numbers."
    if POINT.sub("#", a) != POINT.sub("#", b):
        return False
    return all(map(is_close, POINT.findall(a), POINT.findall(b)))


def differences(cell: dict, outputs: list[dict]) -> list[str]:
    "Lines that say where `outputs` are others than those that stand in `cell`."
    if "varies" in directives(cell):
        return []
    old, new = (said(x).splitlines() for x in (cell["outputs"], outputs))
    # the lines of two processes may come in any order
    if is_same("\n".join(old), "\n".join(new)) or is_same(
        "\n".join(sorted(old)), "\n".join(sorted(new))
    ):
        return []
    diff = difflib.unified_diff(old, new, "in the chapter", "printed now", lineterm="", n=0)
    return [line[:160] for line in diff if not line.startswith("@@")][:12]


# ---- the command ----


def report(number: int, cell: dict, lines) -> str:
    "`lines` about a cell, under a heading."
    first = next((x for x in text(cell).splitlines() if x and not x.startswith("#|")), "")
    return "\n".join([f"cell {number} ({cell.get('id')}): {first}", *(f"  {x}" for x in lines)])


def processor() -> dict[str, str]:
    "What decides about the last digits on this machine, as far as /proc/cpuinfo tells."
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    found = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    low = {"avx512f", "avx512_bf16", "amx_tile"} & set(found.get("flags", "").split())
    names = ("vendor_id", "cpu family", "model")
    return {k: found.get(k, "") for k in names} | dict(flags=" ".join(sorted(low)))


def made_here() -> bool:
    "Whether the committed outputs were made on a processor like this one (tools/run_nb.py)."
    return json.loads(PROCESSOR.read_text()) == processor()


def failures(path: Path, flags: set[str], compare: bool):
    "A text for each cell of the chapter at `path` that fails or prints something else."
    number = {cell["id"]: i for i, cell in enumerate(cells(path, None))}
    for cell, outputs, error in run(path, flags):
        if error:
            lines = "".join(traceback.format_exception(error)).splitlines()
            yield report(number[cell["id"]], cell, lines)
        elif compare and (lines := differences(cell, outputs)):
            yield report(number[cell["id"]], cell, lines)


def main():
    parser = argparse.ArgumentParser(description="Run the cells of plain chapters.")
    parser.add_argument("path", type=Path, help="a notebook")
    parser.add_argument("--flags", default="", help="flags of cells to run that are left out else")
    parser.add_argument("--no-outputs", action="store_true", help="do not compare the outputs")
    parser.add_argument("--outputs", action="store_true", help="compare those of other processors")
    args, path = (a := parser.parse_args()), a.path.resolve()
    sys.argv[1:] = []
    if is_run(path):
        sys.exit(f"{path.relative_to(NBS)} is a run chapter: run it by papermill")
    if "sitecustomize" not in sys.modules or str(STARTUP) not in sys.path:
        os.environ.update(environment())
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    flags = skipped_flags() - set(args.flags.split())
    found = list(
        failures(path, flags, compare=(args.outputs or made_here()) and not args.no_outputs)
    )
    print("\n".join(found))
    sys.exit(len(found) > 0)


if __name__ == "__main__":
    main()
