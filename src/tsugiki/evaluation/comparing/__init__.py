"""From rows of scores to comparison.json: what is compared, judged and said."""
