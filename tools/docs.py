"""Build the documentation site in `_docs/` without Quarto: `python tools/docs.py`

nbdev fills `_proc/` with a Quarto project, smalldocs renders it. Pages are called as the chapters
in nbs/ are, and load nothing from other sites: the mathematics is set by the KaTeX in
tools/katex."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from chapters import NBS, ROOT, module_file, number, text
from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs

KATEX = re.compile(r"https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist")
FONTS = re.compile(r"@import url\([^)]*\);?")  # of Google; the theme names others of the system
IMPORTS = '#| code-fold: true\n#| code-summary: "Imports"\n'


def up(file: Path, folder: Path) -> str:
    "The way from `file` up to `folder`, as a link."
    return "../" * (len(file.relative_to(folder).parts) - 1)


# ---- the notebooks in _proc/ ----


def page_names(proc: Path) -> dict[str, str]:
    "The page of each chapter, by the page that nbdev's links call it: `vq.html` is `02_vq.html`."
    pages = [p.relative_to(proc) for p in proc.rglob("*.ipynb")]
    return {_nbpath2html(p).as_posix(): p.with_suffix(".html").as_posix() for p in pages}


def is_imports(source: str) -> bool:
    "Whether Python code is nothing but import statements."
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(s, ast.Import | ast.ImportFrom) for s in body)


def entry(shown: str) -> str:
    "What nbdev shows of a function or a class, without what says nothing; a class is called one."
    shown = re.sub(r":Annotated\b|\*Call self as a function\.\*", "", shown)
    return re.sub(r"^def (?=[A-Z])", "class ", shown, flags=re.M)


def sources(path: Path, git: str) -> str:
    "Links to the notebook and the module of the chapter at `path`."
    files = [p.relative_to(ROOT).as_posix() for p in (path, module_file(path)) if p]
    return "::: {.sources}\n" + " · ".join(f"[{f}]({git}/{f})" for f in files) + "\n:::"


def polish(nb: dict, path: Path, git: str):
    """Change the notebook `nb`, the chapter at `path`, to how its page shows it: the number in the
    title, where its source is, imports folded away, no entry for `__getattr__`."""
    head = nb["cells"][0]
    front = yaml.safe_load(text(head).strip().strip("-"))
    front.pop("output-file", None)
    front["title"] = " · ".join(filter(None, [number(path), front["title"]]))
    head["source"] = f"---\n{yaml.safe_dump(front, allow_unicode=True)}---\n"
    nb["cells"] = [c for c in nb["cells"] if "show_doc(__" not in text(c)]
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and is_imports(text(cell)):
            cell["source"] = IMPORTS + text(cell)
        if "show_doc(" in text(cell):
            for data in (out["data"] for out in cell["outputs"] if "data" in out):
                data["text/markdown"] = entry("".join(data.get("text/markdown", "")))
    if number(path):
        nb["cells"].insert(1, dict(cell_type="markdown", metadata={}, source=sources(path, git)))


def prepare(proc: Path, site: str, git: str):
    "Polish the notebooks in `proc`, and make nbdev's links to pages of `site` relative."
    names = page_names(proc)
    for file in sorted(proc.rglob("*.ipynb")):
        parts = re.split(re.escape(site) + r"/([\w/]+\.html)", file.read_text(encoding="utf-8"))
        parts[1::2] = [up(file, proc) + names.get(page, page) for page in parts[1::2]]
        nb = json.loads("".join(parts))
        polish(nb, NBS / file.relative_to(proc), git)
        file.write_text(json.dumps(nb), encoding="utf-8")


# ---- the pages ----


def offline(site: Path):
    "Let the pages of `site` take from itself what smalldocs takes from elsewhere."
    shutil.copytree(ROOT / "tools/katex", site / "site_libs/katex")
    for page in site.rglob("*.html"):
        source = page.read_text(encoding="utf-8")
        page.write_text(KATEX.sub(up(page, site) + "site_libs/katex", source), encoding="utf-8")
    for style in site.glob("site_libs/themes/*.css"):
        style.write_text(FONTS.sub("", style.read_text(encoding="utf-8")), encoding="utf-8")


def main():
    cfg = get_config()
    shutil.rmtree(cfg.config_path / "_proc", ignore_errors=True)
    refresh_quarto_yml()
    proc = proc_nbs(n_workers=2)
    prepare(proc, cfg.doc_host + cfg.doc_baseurl, f"{cfg.git_url}/blob/{cfg.branch}")
    subprocess.run([Path(sys.executable).parent / "smalldocs", "render", proc], check=True)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(proc / cfg.doc_path.name, cfg.doc_path)
    offline(cfg.doc_path)


if __name__ == "__main__":
    main()
