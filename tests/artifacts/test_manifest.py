"""Manifests: written last, read strictly, and able to tell which file has changed."""

from __future__ import annotations

import json

import pytest

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import (
    Manifest,
    content_files,
    is_finished,
    read_manifest,
    verify_files,
    write_manifest,
)
from tsugiki.errors import InputError

PAYLOAD = {"kind": "corpus", "config": {"seed": 0}}


def make(directory):
    (directory / "documents").mkdir()
    (directory / "documents" / "part-00000.parquet").write_bytes(b"rows")
    (directory / "log.txt").write_text("not content")
    (directory / "work").mkdir()
    (directory / "work" / "unit").write_text("partial state")
    manifest = Manifest(
        type=ArtifactType.DOCUMENTS,
        kind="corpus",
        code_version=1,
        identity=identity_of(PAYLOAD),
        payload=PAYLOAD,
        config={},
        files=content_files(directory),
        counts={"documents": 3},
        facts={},
        provenance={},
    )
    write_manifest(directory, manifest)
    return manifest


def test_manifest_lists_content_and_nothing_else(tmp_path):
    assert list(make(tmp_path).files) == ["documents/part-00000.parquet"]


def test_manifest_read_back_is_the_same(tmp_path):
    written = make(tmp_path)
    assert read_manifest(tmp_path) == written
    assert is_finished(tmp_path)


def test_manifest_absent_means_unfinished(tmp_path):
    assert not is_finished(tmp_path)
    with pytest.raises(InputError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"payload": {"kind": "other"}}, "was edited"),
        ({"schema_version": 99}, "schema version 99"),
        ({"counts": "three"}, "not a manifest"),
    ],
)
def test_manifest_changed_by_hand_is_refused(tmp_path, change, said):
    make(tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        read_manifest(tmp_path)


def test_verify_files_names_changed_missing_and_foreign_files(tmp_path):
    manifest = make(tmp_path)
    assert verify_files(tmp_path, manifest) == []
    part = tmp_path / "documents" / "part-00000.parquet"
    part.write_bytes(b"ROWS")
    (tmp_path / "foreign").write_text("?")
    assert [fault.split(":")[0] for fault in verify_files(tmp_path, manifest)] == [
        "foreign is not in the manifest",
        "documents/part-00000.parquet has changed",
    ]
    part.unlink()
    assert "documents/part-00000.parquet is missing" in verify_files(tmp_path, manifest)
