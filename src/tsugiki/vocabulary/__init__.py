"""Documents and a model in, a model with more pieces in its vocabulary out, with proof that nothing broke.

pieces.py        what a piece is: whole characters or a fragment of one, its script
words.py         documents -> distinct words as the base tokenizer segments them
characters.py    SentencePiece-style tokenizers: new characters, and where words end
segmenters.py    word segmenters that language packs name
learner.py       learns merges on a segmentation
unigram.py       Unigram tokenizers: unigram_words.py, unigram_candidates.py (which pieces), unigram_scores.py
                 (EM over unigram_lattice.py)
candidates.py    continued BPE: what could be added, by what it saves; which are kept
appending.py     pieces learnt apart from the base's segmentation
extend.py        candidates -> the extended tokenizer, every new piece reachable
writing.py       tokenizer.json, and tokenizer.model in step
curve.py         tokens against pieces; sizing.py: the same for `tsugiki vocabulary measure`
learning.py      from the stage's settings to an extension
rows.py          embedding rows of the new pieces; writing the model without loading all of it
distillation.py  rows by Token Distillation, from snippets.py; initialising.py chooses
measure.py       tokens before and after, round trips, coverage; sentencepiece_ids.py: the peer's ids
proof.py         text without new pieces gives the base's logits
config.py        settings; planning.py: the forecast
stage.py         `kind: vocabulary`
"""
