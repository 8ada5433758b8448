"""Download Debian packages and unpack them, without installing anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class MakeError(Exception):
    """The crawl cannot be made; the message says what to do about it."""


def need(*programs: str) -> None:
    """Refuse to start without the programs that the crawl is made with."""
    missing = [p for p in programs if shutil.which(p) is None]
    if missing:
        raise MakeError(
            f"not found: {', '.join(missing)}. "
            "Hint: this script needs a Debian machine; try 'apt-get install wget apt dpkg'."
        )


def fetch(packages: list[str], work: Path) -> dict[str, str]:
    """Download and unpack every package under `work`; returns their versions."""
    debs, trees = work / "debs", work / "trees"
    debs.mkdir(parents=True, exist_ok=True)
    trees.mkdir(exist_ok=True)
    absent = [p for p in packages if not list(debs.glob(f"{p}_*.deb"))]
    if absent:
        ran = subprocess.run(
            ["apt-get", "download", *absent], cwd=debs, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise MakeError(
                f"apt-get download failed: {ran.stderr.strip()[-400:]} Hint: try 'apt-get update'."
            )
    versions = {}
    for package in packages:
        deb = max(debs.glob(f"{package}_*.deb"))
        versions[package] = deb.name.split("_")[1].replace("%3a", ":")
        if not (trees / package).exists():
            aside = trees / f".{package}"
            shutil.rmtree(aside, ignore_errors=True)
            subprocess.run(["dpkg-deb", "-x", str(deb), str(aside)], check=True)
            aside.rename(trees / package)
    return versions
