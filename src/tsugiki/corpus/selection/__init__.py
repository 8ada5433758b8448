"""A language's records out of Common Crawl, by its columnar index: only their bytes are fetched.

ask.py       what is asked
index.py     which rows of an index file are wanted
ranges.py    rows -> requests: sorted, cut into output files, neighbours merged
plan.py      the index read and dealt out to output files
estimate.py  what it will take
records.py   is this one whole record of that page?
fetch.py     requests -> one output file
select.py    the whole of it, resumable
"""
