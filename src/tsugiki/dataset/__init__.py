"""Documents and a tokenizer in, batches out: tokenise, mix by weight, pack, and start again anywhere.

tokenise.py     documents -> memory-mapped token units
tokens.py       token units -> documents of tokens, checked against the tokenizer
permutation.py  shuffling as a function of (key, index): nothing to store, nothing to replay
packing.py      shuffled documents -> fixed windows that know where one document ends
mixture.py      windows of several sources -> the batch of any step, from (seed, step) alone
"""
