"""Documents and a tokenizer in, batches out: tokenise, mix by weight, pack, and start again anywhere.

encoders.py     the fastest library that gives the reference's ids
tokenise.py     documents -> memory-mapped token units
tokens.py       token units -> documents of tokens, checked against the tokenizer
permutation.py  shuffling as a function of (key, index): nothing to store, nothing to replay
packing.py      shuffled documents, end to end -> fixed windows that know where one document ends
best_fit.py     documents, whole wherever they fit -> fixed windows with padding
schedule.py     which source every sequence comes from: exact at every moment, in one phase or several
ahead.py        the next batch, made while the present one is trained on
mixture.py      windows of several sources -> the batch of any step and rank, from (seed, step) alone
settings.py     what a recipe says of all this
kernels.py      the hot loops, compiled
"""
