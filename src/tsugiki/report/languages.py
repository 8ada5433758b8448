"""English names of languages by ISO 639-1 code, for prose. Data only; an unknown code names itself."""

from __future__ import annotations

from typing import Final

_TABLE: Final = (
    "af=Afrikaans|am=Amharic|ar=Arabic|az=Azerbaijani|be=Belarusian|bg=Bulgarian|bn=Bengali|bs=Bosnian"
    "|ca=Catalan|cs=Czech|cy=Welsh|da=Danish|de=German|el=Greek|en=English|eo=Esperanto|es=Spanish"
    "|et=Estonian|eu=Basque|fa=Persian|fi=Finnish|fr=French|ga=Irish|gl=Galician|gu=Gujarati|ha=Hausa"
    "|he=Hebrew|hi=Hindi|hr=Croatian|hu=Hungarian|hy=Armenian|id=Indonesian|ig=Igbo|is=Icelandic"
    "|it=Italian|ja=Japanese|jv=Javanese|ka=Georgian|kk=Kazakh|km=Khmer|kn=Kannada|ko=Korean|ku=Kurdish"
    "|la=Latin|lo=Lao|lt=Lithuanian|lv=Latvian|mk=Macedonian|ml=Malayalam|mn=Mongolian|mr=Marathi"
    "|ms=Malay|my=Burmese|nb=Norwegian Bokmål|ne=Nepali|nl=Dutch|nn=Norwegian Nynorsk|no=Norwegian"
    "|pa=Punjabi|pl=Polish|ps=Pashto|pt=Portuguese|ro=Romanian|ru=Russian|si=Sinhala|sk=Slovak"
    "|sl=Slovenian|so=Somali|sq=Albanian|sr=Serbian|sv=Swedish|sw=Swahili|ta=Tamil|te=Telugu|th=Thai"
    "|tl=Tagalog|tr=Turkish|uk=Ukrainian|ur=Urdu|uz=Uzbek|vi=Vietnamese|yo=Yoruba|zh=Chinese|zu=Zulu"
)
_NAMES: Final = dict(entry.split("=", 1) for entry in _TABLE.split("|"))


def language_name(code: str) -> str:
    """The English name of an ISO 639-1 code, or the code itself where it is not known."""
    return _NAMES.get(code, code)
