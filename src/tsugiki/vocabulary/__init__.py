"""Documents and a model in, a model with more pieces in its vocabulary out, with proof that nothing broke.

pieces.py    what a piece is: whole characters or a fragment of one, its script
learner.py   learns merges on top of a tokenizer's own segmentation (continued BPE)
words.py     documents -> distinct words as the base tokenizer segments them
extend.py    merges -> the extended tokenizer, every new piece reachable
rows.py      embedding rows of the new pieces; writing the model without loading all of it
measure.py   tokens before and after, round trips, coverage
proof.py     text without new pieces gives the base's logits
stage.py     `kind: vocabulary`
"""
