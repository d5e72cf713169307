"""Build the documentation site in `_docs/` without Quarto: `python tools/docs.py`

nbdev fills `_proc/` with a Quarto project, smalldocs renders it. Where Quarto is, `nbdev_docs` does the same."""

import re, shutil, subprocess, sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import _nbpath2html
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs


def rename_pages(proc, site):
    "Name each page of `proc` as nbdev's links do, without its number, and make links to `site` relative."
    pages = sorted(proc.glob("*.ipynb"))
    for file in [*pages, proc / "sidebar.yml"]:
        text = file.read_text(encoding="utf-8").replace(f"{site}/", "")
        text = re.sub(r"output-file: [\w.]+\\n", "", text)  # the new names say it
        for page in pages:  # but a command names the chapter as it is in nbs/
            text = re.sub(
                rf"(?<!nbs/){re.escape(page.name)}", _nbpath2html(page).stem + ".ipynb", text
            )
        file.write_text(text, encoding="utf-8")
    for page in pages:
        page.rename(proc / (_nbpath2html(page).stem + ".ipynb"))


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
