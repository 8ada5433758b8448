"""WET: the texts that a crawl has extracted already, in `conversion` records (WARC 1.1 §6.7)."""

from __future__ import annotations

from tsugiki.corpus.http import media_type
from tsugiki.corpus.items import Tally, Text
from tsugiki.corpus.records import Record

_BYTE_ORDER_MARK = "\ufeff"


def text_of_record(file: str, offset: int, record: Record, tally: Tally) -> Text | None:
    """The text of a `conversion` record, counted in `tally`; None where there is none, which is counted too.

    The record's WARC-Identified-Content-Language is not looked at: languages are identified by the stage.
    """
    if record.media and media_type(record.media) != "text/plain":
        tally.skip("not text")
        return None
    try:
        text = (record.block or b"").decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        tally.fault(file, offset, "not UTF-8", f"{record.url}: {error}")
        return None
    if not text.replace("\0", "").strip():
        tally.skip("empty body")
        return None
    tally.page()
    return Text(file, offset, text, record.url, record.date, None, record.position)
