"""Draw the diagram of SEED: `python tools/diagram.py` writes nbs/images/pipeline*.svg.

One picture of the whole, and one for each of the chapters 00 to 07 in which its part stands out.
The sizes are read from the configs of both worlds. Plain SVG: its colours follow the reader's light
or dark mode, and it brings its own background."""

import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from seed_nb.causal_qformer import QFormerConfig
from seed_nb.engine.files import WEIGHTS, load_json
from seed_nb.opt_lora import LMConfig
from seed_nb.reverse_qformer import DecoderConfig
from seed_nb.scale.full_size import decoder_parts
from seed_nb.vit_features import ViTConfig
from seed_nb.vq import VQConfig

IMAGES = Path(__file__).resolve().parents[1] / "nbs/images"
WORLDS = "emoji", "paper"


# ---- the sizes ----


def both(preset) -> list[str]:
    "A line for each world of what `preset` says of it, or one line if it says the same of both."
    said = {world: preset(world) for world in WORLDS}
    if len(set(said.values())) == 1:
        return [f"both {said['emoji']}"]
    return [f"{world} {words}" for world, words in said.items()]


def shape(*sizes: int) -> str:
    "Sizes as they are written in a text."
    return " × ".join(f"{n:,}" if n > 1999 else str(n) for n in sizes)  # noqa: RUF001


def drawn() -> dict[str, int]:
    "The side of the pictures that Stable Diffusion draws in each world."
    with torch.device("meta"):
        parts = decoder_parts("paper")
    scale = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
    unet, vae = (load_json(WEIGHTS / f"sd/{p}/config.json") for p in ("unet", "vae"))
    small = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    return dict(emoji=small, paper=parts["unet"].config.sample_size * scale)


def base(world: str) -> str:
    "The name of the language model of a world."
    opt = load_json(WEIGHTS / "opt/config.json")
    if world == "emoji":
        return f"{opt['num_hidden_layers']} layers, width {opt['hidden_size']}"
    return LMConfig.preset(world).base.split("/")[-1].upper()


def sizes() -> dict[str, list[str]]:
    "The lines of sizes that stand in the diagram, by what they describe."
    vit, qformer, vq = ViTConfig.preset, QFormerConfig.preset, VQConfig.preset
    reverse, lm, side = DecoderConfig.preset, LMConfig.preset, drawn()
    return dict(
        pixels=both(lambda w: shape(3, vit(w).image_size, vit(w).image_size)),
        features=both(lambda w: shape(vit(w).n_tokens, vit(w).width)),
        causal=both(lambda w: shape(qformer(w).n_queries, qformer(w).width)),
        codebook=both(lambda w: shape(vq(w).n_codes, vq(w).dim)),
        vectors=both(lambda w: shape(qformer(w).n_queries, vq(w).dim)),
        generation=both(lambda w: shape(reverse(w).n_out, reverse(w).out_width)),
        queries=both(lambda w: f"{reverse(w).n_out} queries"),
        drawn=both(lambda w: shape(3, side[w], side[w])),
        base=both(base),
        words=both(lambda w: f"{lm(w).n_codes:,} words"),
        codes=both(lambda w: f"0 … {vq(w).n_codes - 1:,}"),
    )


# ---- the drawing ----

PALETTE = dict(  # light, dark
    page=("#ffffff", "#161b22"),
    edge=("#c9d1d9", "#3b434d"),
    ink=("#1b1f24", "#e8edf2"),
    soft=("#4d5661", "#aab4bf"),
    frozen=("#eceff3", "#2b323b"),
    frozen_edge=("#6b7683", "#97a2ae"),
    one=("#ffefd6", "#40300f"),
    one_edge=("#c46f00", "#f2a93f"),
    two=("#e0eeff", "#11294b"),
    two_edge=("#1a66c6", "#66a6f7"),
    llm=("#dff5e3", "#103520"),
    llm_edge=("#1d7a34", "#50c46e"),
)
TRAINED = dict(
    frozen="frozen", one="trained in stage I", two="trained in stage II", llm="trained with the LLM"
)
HUES = [round(i * 137.5) % 360 for i in range(32)]  # of the codes


def style(side: int) -> str:
    "The colours of the classes, in the light (0) or in the dark (1)."
    c = {name: pair[side] for name, pair in PALETTE.items()}
    rules = [f".page{{fill:{c['page']};stroke:{c['edge']}}}", f"text{{fill:{c['ink']}}}"]
    rules += [f".wire{{stroke:{c['soft']};fill:none}}.head{{fill:{c['soft']}}}"]
    rules += [f".pill{{fill:{c['page']};stroke:{c['soft']}}}"]
    rules += [f".{k}{{fill:{c[k]};stroke:{c[k + '_edge']}}}" for k in TRAINED]
    return "".join(rules)


@dataclass
class Drawing:
    "An SVG that grows: what is not in the parts `lit` is drawn pale."

    lit: frozenset = frozenset()
    body: list = field(default_factory=list)
    part: str = ""

    def put(self, svg: str):
        "Add an element of the part that is being drawn."
        pale = self.lit and self.part not in self.lit
        self.body.append(f'<g opacity="0.5">{svg}</g>' if pale else svg)

    def text(self, x, y, words, size=17, anchor="start", bold=False):
        "A line of text that stands on `y`."
        weight = ' font-weight="700"' if bold else ""
        where = f'x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"'
        self.put(f"<text {where}{weight}>{escape(words)}</text>")

    def lines(self, x, y, sizes, *names):
        "Bold lines of what is handed on, and below them its sizes."
        for i, words in enumerate([*names, *sizes]):
            self.text(x, y + 21 * i, words, 17, bold=i < len(names))

    def rect(self, x, y, w, h, kind):
        "A box with round corners; thick if its part stands out."
        thick = 5 if self.part in self.lit else 2
        where = f'x="{x}" y="{y}" width="{w}" height="{h}" rx="9"'
        self.put(f'<rect {where} class="{kind}" stroke-width="{thick}"/>')

    def box(self, x, y, w, h, kind, name, *rest):
        "A model: its name, what is to be said of it, and whether it is trained."
        self.rect(x, y, w, h, kind)
        said = [*rest, TRAINED[kind]]
        top = y + (h - 23 - 21 * len(said)) / 2 + 19
        self.text(x + w / 2, top, name, 20, "middle", bold=True)
        for i, words in enumerate(said, 1):
            self.text(x + w / 2, top + 2 + 21 * i, words, 17, "middle")

    def arrow(self, *points, dashed=False):
        "A line through `points` with a head at its end."
        (x, y), (u, v) = points[-2:]
        dx, dy = (u > x) - (u < x), (v > y) - (v < y)
        path = " L".join(f"{a} {b}" for a, b in [*points[:-1], (u - 7 * dx, v - 7 * dy)])
        wire = ' stroke-dasharray="6 5"' if dashed else ""
        a, b = (u - 10 * dx, v - 10 * dy), (6 * dy, 6 * dx)
        head = f"{u} {v} {a[0] + b[0]} {a[1] + b[1]} {a[0] - b[0]} {a[1] - b[1]}"
        self.put(
            f'<path d="M{path}" class="wire" stroke-width="2.5"{wire}/>'
            f'<polygon points="{head}" class="head"/>'
        )

    def pill(self, x, y, words, w):
        "The name of a loss, in the middle of `x`, `y`."
        where = f'x="{x - w / 2}" y="{y - 14}" width="{w}" height="28" rx="14"'
        thick = 3.5 if self.part in self.lit else 1.5
        self.put(f'<rect {where} class="pill" stroke-width="{thick}" stroke-dasharray="6 5"/>')
        self.text(x, y + 6, words, 17, "middle")

    def scene(self, x, y, w, sun, house):
        "A picture of a house and a sun, which lie where it is said."
        (a, b, r), (c, d, s) = sun, house
        self.put(
            f'<g transform="translate({x} {y}) scale({w / 100})">'
            '<rect width="100" height="100" rx="6" fill="#bfe3ff" stroke="#3f6d91" '
            'stroke-width="2"/>'
            f'<circle cx="{a}" cy="{b}" r="{r}" fill="#ffc51f" stroke="#7a5a00" stroke-width="2"/>'
            f'<path d="M{c} {d} h{s} v{-s * 0.7:.1f} h{-s} z" fill="#f4efe6" stroke="#5c2a22" '
            'stroke-width="2"/>'
            f'<path d="M{c - 5} {d - s * 0.7:.1f} h{s + 10} l{-s / 2 - 5} {-s * 0.5:.1f} z" '
            'fill="#d84b3c" stroke="#5c2a22" stroke-width="2"/></g>'
        )

    def svg(self, height: int, name: str) -> str:
        "The whole file."
        dark = f"@media (prefers-color-scheme:dark){{{style(1)}}}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" width="520" '
                f'height="{round(520 * height / 640)}" role="img" font-family="system-ui, '
                "-apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">",
                f"<title>{escape(name)}</title>",
                f"<style>{style(0)}{dark}</style>",
                f'<rect x="1" y="1" width="638" height="{height - 2}" rx="14" class="page" '
                'stroke-width="2"/>',
                *self.body,
                "</svg>\n",
            ]
        )


# ---- the parts ----


def legend(d: Drawing, name: str):
    "The title, and what colours and lines mean."
    d.part = next(iter(d.lit), "")
    d.text(320, 38, name, 22, "middle", bold=True)
    for i, (kind, words) in enumerate(TRAINED.items()):
        x, y = (26, 336)[i % 2], 56 + 27 * (i // 2)
        where = f'x="{x}" y="{y}" width="34" height="20" rx="5"'
        d.put(f'<rect {where} class="{kind}" stroke-width="2"/>')
        d.text(x + 44, y + 16, words)
    d.arrow((26, 120), (60, 120), dashed=True)
    d.text(70, 126, "only in training")
    d.text(336, 126, "sizes: emoji world, paper")


def encoder(d: Drawing, s: dict):
    "From a picture to 32 codes: the left side."
    d.part = "vit"
    d.scene(26, 148, 82, (72, 28, 16), (16, 88, 40))
    d.text(118, 172, "picture", 18, bold=True)
    d.text(118, 194, "in", 18, bold=True)
    d.arrow((34, 236), (34, 286))
    d.lines(48, 255, s["pixels"])
    d.box(14, 288, 212, 70, "frozen", "ViT")
    d.arrow((34, 360), (34, 450))
    d.lines(48, 388, s["features"], "features")
    d.part = "qformer"
    d.box(14, 452, 212, 92, "one", "Causal Q-Former", "32 causal queries")
    d.arrow((34, 546), (34, 624))
    d.lines(48, 571, s["causal"], "causal embeddings")
    d.part = "vq"
    d.box(14, 626, 212, 112, "two", "VQ: codebook", *s["codebook"])
    d.arrow((34, 740), (34, 776))
    d.lines(48, 764, ["the nearest vector"])


def middle(d: Drawing, s: dict):
    "The caption, and what it is compared with; the code decoder."
    d.part = "caption"
    d.rect(242, 148, 156, 84, "pill")
    d.text(320, 171, "caption", 18, "middle", bold=True)
    d.text(320, 195, "“a house left,", 17, "middle")
    d.text(320, 217, "a sun right”", 17, "middle")
    d.part = "contrast"
    d.arrow((250, 234), (250, 484), dashed=True)
    d.arrow((242, 498), (228, 498), dashed=True)
    d.pill(319, 498, "contrastive loss", 154)
    d.part = "text"
    d.arrow((314, 234), (314, 356), dashed=True)
    d.box(264, 358, 100, 84, "frozen", "CLIP", "text part")
    d.part = "align"
    d.arrow((420, 400), (434, 400), dashed=True)
    d.pill(394, 400, "MSE", 52)
    d.part = "recon"
    d.arrow((322, 626), (322, 592), dashed=True)
    d.arrow((264, 577), (244, 577), dashed=True)
    d.pill(322, 577, "cosine loss", 116)
    d.box(240, 626, 164, 112, "two", "Code decoder", "transformer")
    d.arrow((322, 776), (322, 740))


def decoder(d: Drawing, s: dict):
    "From 32 codes to a picture: the right side."
    d.part = "reverse"
    d.arrow((436, 776), (436, 566))
    d.lines(450, 670, s["vectors"], "code vectors")
    d.box(416, 452, 210, 112, "two", "Reverse Q-Former", *s["queries"])
    d.part = "generation"
    d.arrow((436, 450), (436, 360))
    d.lines(450, 380, s["generation"], "generation", "embeddings")
    d.part = "sd"
    d.box(416, 288, 210, 70, "frozen", "SD: UNet + VAE")
    d.arrow((436, 286), (436, 236))
    d.lines(447, 255, s["drawn"])
    d.part = "out"
    d.scene(532, 148, 82, (70, 30, 18), (20, 86, 36))
    d.text(522, 172, "picture", 18, "end", bold=True)
    d.text(522, 194, "out", 18, "end", bold=True)


def language_model(d: Drawing, s: dict):
    "The 32 codes, and the language model that reads and writes them."
    d.part = "codes"
    d.rect(14, 778, 612, 76, "pill")
    for i, hue in enumerate(HUES):
        d.put(
            f'<rect x="{24 + 18.6 * i:.1f}" y="788" width="16" height="26" rx="3" '
            f'fill="hsl({hue} 62% 52%)"/>'
        )
    d.text(24, 842, "32 codes", 18, bold=True)
    d.text(616, 842, ", ".join(s["codes"]), 17, "end")
    d.part = "lm"
    d.arrow((150, 856), (150, 892))
    d.text(164, 880, "read as words")
    d.arrow((440, 892), (440, 856))
    d.text(454, 880, "written as words")
    d.box(14, 894, 300, 112, "frozen", "Language model (OPT)", *s["base"])
    d.part = "lora"
    d.box(326, 894, 300, 112, "llm", "LoRA, visual vocabulary", *s["words"])
    d.part = "tasks"
    d.arrow((150, 1058), (150, 1008))
    d.arrow((440, 1008), (440, 1058))
    d.pill(295, 1034, "next-token loss", 150)
    d.text(26, 1082, "“what is left?”, “draw a sun”")
    d.text(614, 1082, "“a house”, 32 codes", anchor="end")


def measures(d: Drawing):
    "What chapter 07 measures."
    d.part = "measured"
    d.pill(319, 498, "retrieval: R@1", 154)
    d.pill(226, 836, "how many in use", 170)
    d.pill(530, 222, "the same scene?", 168)


CHAPTERS = {  # what stands out in the picture of a chapter
    "": ("SEED: pictures as words", ""),
    "_00": ("Chapter 00: the frozen ViT", "vit"),
    "_01": ("Chapter 01: the Causal Q-Former", "qformer contrast caption"),
    "_02": ("Chapter 02: the visual vocabulary", "vq codes"),
    "_03": ("Chapter 03: the Reverse Q-Former", "reverse generation recon codes"),
    "_04": ("Chapter 04: what Stable Diffusion is given", "caption text align generation sd out"),
    "_05": ("Chapter 05: a language model for codes", "codes lm lora"),
    "_06": ("Chapter 06: training the language model", "lora tasks codes"),
    "_07": ("Chapter 07: what a tokenizer is worth", "measured caption codes out"),
}


def pipeline(name: str, lit: str, s: dict) -> str:
    "The diagram under the title `name`, in which the parts `lit` stand out."
    d = Drawing(frozenset(lit.split()))
    legend(d, name)
    encoder(d, s)
    middle(d, s)
    decoder(d, s)
    language_model(d, s)
    if "measured" in d.lit:
        measures(d)
    return d.svg(1100, name)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    s = sizes()
    for end, (name, lit) in CHAPTERS.items():
        (IMAGES / f"pipeline{end}.svg").write_text(pipeline(name, lit, s), encoding="utf-8")
