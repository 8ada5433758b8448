"""Fit the forest of the block extractor (corpus/extract_forest.json) on half of an evaluation set.

    pip install lightgbm
    python benchmarks/extraction_training.py --trafilatura-set FOLDER --out forest.json

FOLDER is `tests` of trafilatura's repository (evaldata.json beside `cache` and `eval`). A page belongs
to the fitting half if the SHA-256 of its file name is even; `extraction.py` reports the other half. A
block's label is whether trafilatura with Swallow's settings keeps it, unless it holds a segment that the
set itself marks as main text or as surroundings: that decides, with four times the weight. Blocks weigh
by the square root of their length, pages by that of their sum.
"""

from __future__ import annotations

import argparse
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from extraction import Item, evaluation_items

from tsugiki.corpus.extract import extract
from tsugiki.corpus.extract_blocks import scanned
from tsugiki.corpus.extract_features import features_of
from tsugiki.corpus.extract_scan import END, START

GOLD_WEIGHT = 4
SURE_LENGTH = 25  # a shorter block must be a whole line of trafilatura's text
TREES = 120
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 8,
    "learning_rate": 0.15,
    "min_data_in_leaf": 50,
    "lambda_l2": 5,
    "feature_fraction": 0.6,
    "seed": 1,
    "deterministic": True,
    "force_col_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
Floats = npt.NDArray[np.float64]


def flat(text: str) -> str:
    """White space collapsed."""
    return " ".join(text.split())


def labelled(item: Item) -> tuple[npt.NDArray[np.float32], Floats, Floats]:
    """The facts float32[blocks, FEATURES], labels and weights of a page's blocks."""
    text, blocks, elements = scanned(item.page)
    texts = [flat(html.unescape(text[row[START] : row[END]].decode("utf-8", "replace"))) for row in blocks]
    careful = extract(item.page, "trafilatura").text
    lines = {flat(line).lstrip("- ") for line in careful.split("\n")}
    joined = flat(careful)
    labels, weights = np.zeros(len(texts)), np.zeros(len(texts))
    for place, block in enumerate(texts):
        labels[place] = block in lines or (len(block) >= SURE_LENGTH and block in joined)
        weights[place] = max(1, len(block)) ** 0.5
        for segments, label in ((item.surroundings, 0), (item.main, 1)):
            if any(flat(segment) in block for segment in segments):
                labels[place], weights[place] = label, GOLD_WEIGHT * max(1, len(block)) ** 0.5
    return features_of(blocks, elements), labels, weights / (weights.sum() ** 0.5 + 1)


def stored(model: dict[str, Any]) -> dict[str, list[Any]]:
    """LightGBM's trees as flat lists, a value a node: feature (-1 for a leaf), threshold, children, value."""
    out: dict[str, list[Any]] = {
        key: [] for key in ("roots", "feature", "threshold", "left", "right", "value")
    }

    def add(node: dict[str, Any]) -> int:
        place = len(out["feature"])
        leaf = "leaf_value" in node
        out["feature"].append(-1 if leaf else node["split_feature"])
        out["threshold"].append(0.0 if leaf else float(f"{np.float32(node['threshold']):.6g}"))
        out["value"].append(round(node["leaf_value"], 5) if leaf else 0.0)
        for side in ("left", "right"):
            out[side].append(-1)
        if not leaf:
            for side in ("left", "right"):
                out[side][place] = add(node[f"{side}_child"])
        return place

    for tree in model["tree_info"]:
        out["roots"].append(add(tree["tree_structure"]))
    return out


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trafilatura-set", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    import lightgbm

    items = [item for item in evaluation_items(options.trafilatura_set) if item.fitted]
    facts, labels, weights = (np.concatenate(parts) for parts in zip(*map(labelled, items), strict=True))
    data = lightgbm.Dataset(facts, labels, weight=weights)
    model = lightgbm.train(SETTINGS, data, TREES).dump_model()
    options.out.write_text(json.dumps(stored(model), separators=(",", ":")), encoding="utf-8")
    print(f"{len(items)} pages, {len(labels)} blocks, {int(labels.sum())} of them main text")


if __name__ == "__main__":
    main()
