"""The loops are compiled before the processes start: once, again where the cache is another, never fatal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsugiki.corpus.compiling import GROUPS, compile_loops

SMALL = (("extract_depth",),)


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    return tmp_path


def test_compile_loops_with_empty_cache_compiles_once_and_tells(empty_caches: Path) -> None:
    told: list[tuple[int, int]] = []
    assert compile_loops(lambda done, of: told.append((done, of)), SMALL)
    assert told == [(0, 1), (1, 1)]
    assert list((empty_caches / "numba").rglob("*.nbi"))
    assert not compile_loops(lambda done, of: told.append((done, of)), SMALL)
    assert len(told) == 2


def test_compile_loops_with_another_cache_compiles_again(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compile_loops(lambda *_: None, SMALL)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(empty_caches / "other"))
    assert compile_loops(lambda *_: None, SMALL)
    assert list((empty_caches / "other").rglob("*.nbi"))


def test_compile_loops_without_a_writable_home_goes_on(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_caches / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_caches / "file"))
    assert compile_loops(lambda *_: None, SMALL)


def test_compile_loops_leaves_a_module_that_fails_to_the_run(
    empty_caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(empty_caches / "file" / "below"))
    (empty_caches / "file").write_text("no directory")
    told: list[int] = []
    assert compile_loops(lambda done, _: told.append(done), SMALL)
    assert told == [0, 1]


def test_groups_name_modules_with_loops_and_share_none() -> None:
    names = [name for group in GROUPS for name in group]
    assert len(names) == len(set(names))
    corpus = Path(__file__).parents[2] / "src/tsugiki/corpus"
    for name in names:
        assert "njit" in corpus.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8"), (
            name
        )
