"Packaging, read from settings.ini: the one place that names versions and requirements."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
readme = here / "README.md"
oldest, newest = (int(cfg[k].split(".")[1]) for k in ("min_python", "below_python"))
stages = ["1 - Planning", "2 - Pre-Alpha", "3 - Alpha", "4 - Beta", "5 - Production/Stable"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    project_urls={
        "Source": cfg["git_url"],
        "Documentation": cfg["doc_host"] + cfg["doc_baseurl"],
        "Issues": cfg["git_url"] + "/issues",
        "Paper": "https://arxiv.org/abs/2307.08041",
    },
    classifiers=[
        "Development Status :: " + stages[int(cfg["status"]) - 1],
        "Intended Audience :: " + cfg["audience"],
        "Intended Audience :: Science/Research",
        "Natural Language :: " + cfg["language"],
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{n}" for n in range(oldest, newest)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    packages=find_packages(include=[cfg["lib_path"], cfg["lib_path"] + ".*"]),
    package_data={cfg["lib_path"]: ["weights/**", "**/*.txt", "**/*.json", "curves/*.jsonl"]},
    zip_safe=False,
    python_requires=f">={cfg['min_python']},<{cfg['below_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        k: cfg[f"{k}_requirements"].split() for k in ("emoji", "quant", "smollm2", "eval", "dev")
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "lmms_eval.models": ["seed_nb = seed_nb.lmms_eval_model:lmms_manifest"],
    },
)
