"""What the pages of the documentation hold, and where their links lead."""

import html
import re
from pathlib import Path

from chapters import CHAPTERS, ROOT, cells, number, text, title

LINK = re.compile(r'<a\b[^>]*?\bhref="([^"]+)"')
ANCHOR = re.compile(r'\b(?:id|name)="([^"]+)"')
# what a page shows otherwise than it stands in the notebook
OTHERWISE = re.compile(
    r"\$\$.+?\$\$|\$[^$]+\$|`[^`]+`|<[^>]+>|https?://\S+|!\[[^]]*\]\([^)]*\)", re.S
)


def page_of(path: Path) -> str:
    "The page of the chapter at `path`."
    return title(path) + ".html"


def words(prose: str) -> list[str]:
    "The words of a text, without marks and digits."
    return re.findall(r"[A-Za-z]+", prose)


def paragraphs(path: Path):
    "The paragraphs of the chapter at `path` that are prose, not code."
    for cell in cells(path, "markdown"):
        prose = re.sub(r"^(```|~~~).*?^\1", "", text(cell), flags=re.M | re.S)
        yield from filter(None, map(str.strip, re.split(r"\n\s*\n", prose)))


def sample(paragraph: str) -> str:
    "Six words in a row of a paragraph, of its longest part that a page shows as it stands."
    plain = re.sub(r"(?<!!)\[([^]]*)\]\([^)]*\)", r"\1", paragraph)  # the words of links
    parts = (words(part) for part in re.split(r"[\0|]", OTHERWISE.sub("\0", plain)))
    return " ".join(max(parts, key=len)[:6])


def lost(site: Path):
    "Pairs of a chapter and the beginning of a paragraph of it that is not on its page."
    for path in CHAPTERS:
        page = (site / page_of(path)).read_text(encoding="utf-8")
        page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
        seen = " ".join(words(html.unescape(re.sub(r"<[^>]+>", " ", page))))
        for paragraph in paragraphs(path):
            if sample(paragraph) not in seen:
                yield title(path), paragraph[:80]


def dead_links(site: Path):
    "Pairs of a page and a link on it to a file of the site, or a place in it, that is not there."
    pages = {p: p.read_text(encoding="utf-8") for p in sorted(site.rglob("*.html"))}
    anchors = {p: set(map(html.unescape, ANCHOR.findall(page))) for p, page in pages.items()}
    for page, source in pages.items():
        for link in map(html.unescape, LINK.findall(source)):
            if re.match(r"[a-z]+:|//|data:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file.partition("?")[0]).resolve() if file else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (anchor and anchor not in anchors.get(target, {anchor})):
                yield page.relative_to(site).as_posix(), link


# what a browser fetches by itself when it shows a page or a style sheet
FETCHED = re.compile(
    r"""<(?:img|script|source|iframe|video|embed)\b[^>]*?\bsrc\s*=\s*["']?([^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel="?(?:stylesheet|icon|preload))[^>]*?\bhref="?([^"\s>]+)"""
    r"""|@import\s+(?:url\()?["']?([^"')\s]+)|\burl\(\s*["']?([^"')]+)"""
    r"""|\bimport\b[^;]{,80}?\bfrom\s*["']([^"']+)"""
)


def not_here(site: Path):
    """Pairs of a page or a style sheet of the site, and something that a browser fetches to show
    it and that is no file of the site: on another machine, or nowhere."""
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        source = file.read_text(encoding="utf-8")
        if file.suffix == ".html":  # a page may show code that fetches something
            source = re.sub(r"<(pre|code)\b.*?</\1>", "", source, flags=re.S)
        for found in FETCHED.finditer(source):
            link = html.unescape(next(filter(None, found.groups())))
            target = file.parent / re.sub(r"[?#].*", "", link)
            if not link.startswith(("data:", "#")) and not target.is_file():
                yield file.relative_to(site).as_posix(), link


def unfinished(site: Path, git: str):
    """Pairs of a chapter and what its page lacks: the number in the title, links to its source at
    `git` and to its neighbours, words about a function that say something."""
    for path in CHAPTERS:
        page = (site / page_of(path)).read_text(encoding="utf-8")
        wanted = dict.fromkeys(['class="page-navigation"'], "links to the neighbours")
        if number(path):
            wanted |= {f"{git}/nbs/{title(path)}.ipynb": "a link to the source"}
            wanted |= {f'class="title">{number(path)} · ': "the number in the title"}
        yield from ((title(path), what) for text, what in wanted.items() if text not in page)
        if "Call self as a function" in page:
            yield title(path), "words about what a function does"


def slug(heading: str) -> str:
    "The anchor that GitHub gives to a heading."
    return re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-")


def dead_files(path: Path):
    "Links of the markdown file at `path` to a file of the repository that is not there."
    source = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", source) + re.findall(r'\b(?:src|href)="([^"]+)"', source)
    for link in links:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in headings(target)):
            yield link


def headings(path: Path) -> set[str]:
    "The anchors of a markdown file or of a notebook, as GitHub makes them."
    if path.suffix == ".ipynb":
        source = "\n".join(map(text, cells(path, "markdown")))
    else:
        source = path.read_text(encoding="utf-8")
    return set(map(slug, re.findall(r"^#+ (.+)$", source, re.M)))


DOCUMENTS = sorted(ROOT.glob("*.md"))
