"""Language packs: everything that the code knows of a language, as data.

`languages/<code>/pack.toml` holds scripts, identification labels, legacy encodings, prefilter facts and the
thresholds of the quality rules. No code anywhere asks which language it is; adding one is adding a folder.
Further folders are searched where `load_pack` is given them (`extra`), so a pack may live outside of the
package.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from tsugiki.errors import InputError, did_you_mean
from tsugiki.languages.schema import (
    Bound,
    CodePoints,
    Decoding,
    Identification,
    LanguagePack,
    Prefilter,
    Script,
    Typical,
    WordList,
)

__all__ = [
    "Bound",
    "CodePoints",
    "Decoding",
    "Identification",
    "LanguagePack",
    "Prefilter",
    "Script",
    "Typical",
    "WordList",
    "load_pack",
    "pack_codes",
    "read_pack",
]

PACK_FILE = "pack.toml"
_HERE = Path(__file__).parent


def pack_codes(extra: Sequence[Path] = ()) -> list[str]:
    """The codes of all packs, sorted."""
    return sorted({path.parent.name for root in (*extra, _HERE) for path in root.glob(f"*/{PACK_FILE}")})


def load_pack(code: str, extra: Sequence[Path] = ()) -> LanguagePack:
    """The pack of a language.

    extra: folders of packs that are searched before the package's own.
    Raises InputError where there is no such pack, or where its file is not what `LanguagePack` says.
    """
    return _load(code, tuple(extra))


@cache
def _load(code: str, extra: tuple[Path, ...]) -> LanguagePack:
    codes = pack_codes(extra)
    if code not in codes:
        raise InputError(f'there is no language pack "{code}"', hint=did_you_mean(code, codes))
    path = next(root / code / PACK_FILE for root in (*extra, _HERE) if (root / code / PACK_FILE).exists())
    return read_pack(path)


def read_pack(path: Path) -> LanguagePack:
    """Read one pack file; raises InputError with every fault in it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        pack = LanguagePack.model_validate(data)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(
            f"{path} can't be read as TOML: {error}", hint="mend the line named above"
        ) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'pack'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise InputError(
            f"{path} is not a language pack: {faults}", hint="compare it with languages/ja/pack.toml"
        ) from error
    if pack.code != path.parent.name:
        raise InputError(
            f'{path} says code = "{pack.code}" but lies in "{path.parent.name}"',
            hint="a pack's folder bears its code",
        )
    lists = {
        name: words.model_copy(update={"entries": read_list(path.parent / words.file)})
        for name, words in pack.lists.items()
    }
    return pack.model_copy(update={"lists": lists})


def read_list(path: Path) -> tuple[str, ...]:
    """The entries of a word list: one a line, white space around it dropped, `#` lines and repeats left out.

    Raises InputError where the file is missing, is not UTF-8 or holds no entry.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: the list is not UTF-8", hint="convert it: iconv -f OLD -t UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"the word list {path} can't be read ({error.strerror})", hint="mend the name in pack.toml"
        ) from error
    entries = (line.strip() for line in lines)
    found = tuple(dict.fromkeys(entry for entry in entries if entry and not entry.startswith("#")))
    if not found:
        raise InputError(f"the word list {path} holds no entry", hint="write one entry a line")
    return found
