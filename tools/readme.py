"""Write README.md from nbs/index.ipynb: `python tools/readme.py`.

Pictures and links work from the repo's root."""

import base64
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "nbs/images"
NO_SOURCE = re.compile(r"^#\|\s*echo:\s*false\b", re.M)
ALT = re.compile(r"^#\|\s*fig-alt:\s*(.+)", re.M)


def from_root(text):
    """Put nbs/ before every relative link and picture of `text`, and size pictures in a way
    GitHub knows."""
    relative = r"(?!\w+:|#|/|nbs/)"
    text = re.sub(rf'(\]\(|\bsrc="|\bhref="){relative}', r"\1nbs/", text)
    return re.sub(
        r"!\[([^]]*)\]\(([^)]+)\)\{width=(\w+)\}", r'<img src="\2" alt="\1" width="\3">', text
    )


def show_output(out, name, alt=""):
    "One output as markdown; a picture goes to nbs/images/`name`."
    is_stream = out["output_type"] == "stream"
    data = {"text/plain": out["text"]} if is_stream else out.get("data", {})
    if "image/png" in data:
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / name).write_bytes(base64.b64decode("".join(data["image/png"])))
        return f"![{alt}](nbs/images/{name})"
    if "text/markdown" in data:
        return from_root("".join(data["text/markdown"]))
    return "```\n" + "".join(data.get("text/plain", "")).rstrip() + "\n```"


def readme(nb):
    "Markdown of the notebook `nb`: its text, its visible code and what that code put out."
    parts = ["<!-- made by tools/readme.py from nbs/index.ipynb: edit that -->"]
    for i, cell in enumerate(nb["cells"]):
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(from_root(source))
        if cell["cell_type"] != "code" or re.match(r"#\|\s*hide\b", source):
            continue
        if not NO_SOURCE.search(source):
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
            parts.append(f"```python\n{code}\n```")
        alt = m[1].strip() if (m := ALT.search(source)) else ""
        parts += [
            show_output(out, f"index_{i}_{j}.png", alt)
            for j, out in enumerate(cell["outputs"])
            if out.get("name") != "stderr"
        ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    nb = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    (ROOT / "README.md").write_text(readme(nb), encoding="utf-8")
