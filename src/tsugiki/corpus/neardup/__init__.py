"""Near-duplicates with bounded memory: what grows with the number of documents lies in files.

units.py       signatures and band keys of a work unit's documents, beside its Parquet file
passes.py      how much of a large column fits into memory at a time
bands.py       one band is one task: sort its keys, write the pairs of documents that share one
components.py  connected components in a memory-mapped union-find
survivors.py   whom each cluster keeps, cluster sizes, re-hydration weights
verify.py      candidate pairs checked by their real Jaccard similarity
index.py       the saved index of a finished corpus, and new documents joined to it
kernels.py     the loops, compiled

The order of work: `write_unit_index` for every unit; `number_units`; `band_edges` for every band, in
parallel, in any order; `Components.union_file` for every edge file; `choose_survivors`.
"""
