"""What the notebooks and the modules that they export hold, read from their text."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NBS, LIB = ROOT / "nbs", ROOT / "seed_nb"
FOLDERS = "engine", "emoji", "scale"  # beside the story, which stands in nbs/ itself
CHAPTERS = [
    p for d in (*FOLDERS, ".") for p in sorted((NBS / d).glob("[!_.]*.ipynb"))
]  # inside a folder the order of the files is the order of reading and of import
MODULES = sorted(p for p in LIB.rglob("*.py") if not p.name.startswith("_"))
MODEL_CHAPTER = re.compile(r"0[0-4]_|04a_|05")


def title(path: Path) -> str:
    "The name of a chapter in a test's name: its folder and its file."
    return path.relative_to(NBS).with_suffix("").as_posix()


def number(path: Path) -> str:
    "The number of a chapter in its folder, such as `04a`; an empty string for the front page."
    found = re.match(r"(\d+[a-z]*)_", path.name)
    return found[1] if found else ""


def cells(path: Path, kind: str | None = "code") -> list[dict]:
    "The cells of the notebook at `path` that are of this `kind`, or all of them."
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [c for c in found if kind in (None, c["cell_type"])]


def text(cell: dict) -> str:
    "The source of a cell."
    return "".join(cell["source"])


def python(cell: dict) -> str:
    "The source of a code cell, without magics."
    return re.sub(r"^\s*[%!].*$", "pass", text(cell), flags=re.M)


def is_exported(cell: dict) -> bool:
    "Whether a code cell goes into the package."
    return re.search(r"^#\|\s*exports?\b", text(cell), re.M) is not None


def is_run(path: Path) -> bool:
    "Whether the chapter at `path` is run by papermill and not by the tests of its cells."
    return any("skip_exec: true" in text(c) for c in cells(path, "raw"))


def directives(cell: dict) -> dict[str, str]:
    "The `#| name value` lines that open a code cell."
    found = {}
    for line in text(cell).splitlines():
        if line.strip() and not line.startswith("#|"):
            break
        if m := re.match(r"#\|\s*([\w-]+):?\s*(.*)", line):
            found[m[1]] = m[2].strip()
    return found


def modules_of(path: Path) -> list[str]:
    "The modules that the notebook at `path` names by `default_exp`; there should be one at most."
    source = "\n".join(map(python, cells(path)))
    return [f"seed_nb.{m}" for m in re.findall(r"^#\|\s*default_exp (\S+)", source, re.M)]


def module(path: Path) -> str:
    """The module that the chapter at `path` exports, such as `seed_nb.engine.config`.

    Else an empty string."""
    return next(iter(modules_of(path)), "")


def module_file(path: Path) -> Path | None:
    "The file of the module that the chapter at `path` exports, if it exports one."
    name = module(path)
    return LIB.parent.joinpath(*name.split(".")).with_suffix(".py") if name else None


def places(path: Path) -> dict[str, tuple[str, int]]:
    """Where the exported cells of the chapter at `path` stand in the package.

    By the source of a cell: the file of its module, and by how many lines the cell stands further
    down there than in the notebook. nbdev writes every cell behind a line `# %% notebook #id`."""
    file = module_file(path)
    if file is None or not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    at = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"# %% \S+ #(\S+)$", line))}
    found = {}
    for cell in filter(is_exported, cells(path)):
        if (marker := at.get(cell.get("id"))) is not None:
            here, there = first_code(text(cell).splitlines()), first_code(lines[marker + 1 :])
            found[text(cell)] = str(file), marker + 1 + there - here
    return found


def first_code(lines: list[str]) -> int:
    "The index of the first of `lines` that is neither empty nor a directive."
    is_code = (i for i, line in enumerate(lines) if line.strip() and not line.startswith("#|"))
    return next(is_code, 0)


def tagged(path: Path) -> list[dict]:
    "The cells that are tagged `parameters`."
    return [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]


def parameters(path: Path) -> dict:
    "Statements of the parameters cell of the chapter at `path`, by the name they assign to."
    body = ast.parse("\n".join(map(python, tagged(path)))).body
    return {ast.unparse(s).partition(" = ")[0]: s for s in body}


def imported(source: str, package: str = "seed_nb") -> set[str]:
    """Modules of seed_nb, and stars, that `source` imports.

    `package` is where relative imports begin."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("seed_nb.")}
        if isinstance(node, ast.ImportFrom):
            found |= set(_imported_from(node, package))
    return found


def _imported_from(node: ast.ImportFrom, package: str):
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    full = ".".join(filter(None, [base, node.module]))
    if any(a.name == "*" for a in node.names):
        yield "*"
    if full == "seed_nb" or full in {f"seed_nb.{d}" for d in FOLDERS}:
        yield from (f"{full}.{a.name}" for a in node.names if not a.name.startswith("__"))
    elif full.startswith("seed_nb."):
        yield full


def imports(path: Path) -> list[ast.stmt]:
    "The import statements of the cells of a chapter that stand outside of functions."
    body = [s for c in cells(path) for s in ast.parse(python(c)).body]
    return [s for s in body if isinstance(s, (ast.Import, ast.ImportFrom))]


def imports_of(path: Path, exported: bool = False) -> set[str]:
    "Modules that the cells of a chapter import, or its `exported` cells only."
    return {m for c in cells(path) if is_exported(c) or not exported for m in imported(python(c))}


def definitions(path: Path):
    "The functions and classes at the top level of a module, as nodes of its syntax tree."
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def public_functions(path: Path):
    "`(name, node)` of public functions and of the public methods of public classes of a module."
    for node in definitions(path):
        if node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        for n in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"):
                yield f"{node.name}.{n.name}", n
