"""Build the documentation site in `_docs/` without Quarto: `python tools/docs.py`

nbdev fills `_proc/` with a Quarto project, smalldocs renders it. Where Quarto is, `nbdev_docs`
does the same."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs


def new_name(page: Path) -> str:
    "The name by which nbdev's links call a page: without its number."
    return _nbpath2html(page).stem + ".ipynb"


def rename_pages(proc: Path, site: str):
    "Name each page of `proc` as nbdev's links do, and make links to `site` relative."
    pages = sorted(proc.rglob("*.ipynb"))
    for file in [*pages, proc / "sidebar.yml"]:
        up = "../" * (len(file.relative_to(proc).parts) - 1)
        text = file.read_text(encoding="utf-8").replace(f"{site}/", up)
        text = re.sub(r"output-file: [\w./]+\\n", "", text)  # the new names say it
        for page in pages:  # but a command names the chapter as it is in nbs/
            old = page.relative_to(proc).as_posix()
            new = page.relative_to(proc).with_name(new_name(page)).as_posix()
            text = re.sub(rf"(?<![\w/.])((?:\.\./)*){re.escape(old)}", rf"\1{new}", text)
        file.write_text(text, encoding="utf-8")
    for page in pages:
        page.rename(page.with_name(new_name(page)))


def main():
    cfg = get_config()
    shutil.rmtree(cfg.config_path / "_proc", ignore_errors=True)
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()
    proc = proc_nbs(n_workers=2)
    rename_pages(proc, cfg.doc_host + cfg.doc_baseurl)
    subprocess.run([Path(sys.executable).parent / "smalldocs", "render", proc], check=True)
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(proc / cfg.doc_path.name, cfg.doc_path)


if __name__ == "__main__":
    main()
