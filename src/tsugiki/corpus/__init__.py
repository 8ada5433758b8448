"""From a crawl to documents: read, decode, prefilter, extract, identify, rules, near-duplicates, split."""
