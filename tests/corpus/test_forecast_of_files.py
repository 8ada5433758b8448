"""What a corpus of files that hold texts already is expected to give, however the source is written."""

import gzip
import json

import pytest

from tsugiki.artifacts.contract import ArtifactType, Forecast
from tsugiki.corpus.config import Config
from tsugiki.corpus.forecast import forecast


@pytest.fixture
def folder(tmp_path):
    lines = "".join(json.dumps({"text": f"graft {number} " + 400 * "x "}) + "\n" for number in range(200))
    (tmp_path / "part-0.jsonl").write_text(lines)
    with gzip.open(tmp_path / "part-1.jsonl.gz", "wt") as packed:
        packed.write(lines)
    return tmp_path


@pytest.mark.parametrize("pattern", ["*.jsonl*", "part-*", "*"])
def test_forecast_by_a_pattern_is_that_of_its_files(folder, pattern):
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    source = f"{folder}/{pattern}"
    whole = Forecast(ArtifactType.FILES, {"bytes": float(sum(sizes.values()))})
    expected = 0.9 * sizes["part-0.jsonl"] + 2.8 * sizes["part-1.jsonl.gz"]
    config = Config(source=[source], language="en", rules="none", heldout=0.1)
    for inputs in ({source: whole}, {}):
        assert forecast(config, inputs).counts["bytes"] == pytest.approx(expected)


def test_forecast_of_files_elsewhere_goes_by_what_is_known_of_them():
    source = "s3://bucket/ja/*.jsonl.gz"
    known = Forecast(ArtifactType.FILES, {"bytes": 1e9})
    config = Config(source=[source], language="en", rules="none")
    assert forecast(config, {source: known}).counts["bytes"] == pytest.approx(2.8e9)
