"""Do training documents hold benchmark items, and what are scores without those items?

    wanted.py      the benchmarks' questions and golds, without the prompts around them
    documents.py   documents of artifacts and files, one at a time; damage is counted
    scan.py        an index for each language, and what of it stands in each document
    whole.py       questions of few letters, as a whole
    effect.py      scores with and without the items that were found
    page.py        the report, as JSON and as one HTML file

The index is that of the corpus stage's decontamination (corpus/contamination.py): character n-grams, so it
works without spaces between words.
"""
