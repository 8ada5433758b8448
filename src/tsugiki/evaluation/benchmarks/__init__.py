"""Benchmarks with gold answers, as data: the nineteen of arXiv 2412.14471 as Swallow ran them in 2024.

Read in this order:

    schema.py         what a task's file may say
    reading.py        tasks/*.yaml -> TaskSpec, with file and line of every fault; variants
    manifest.py       manifest.csv: where the files lie, their hashes and licences
    store.py          a local folder or cache of those files, checked against the pins (fetch.py fills it)
    sources/          one function a file format: file -> records
    shots.py          which worked examples stand before a question
    prompts.py        templates -> prompts
    questions.py      records -> items
    extraction.py     an output -> the answer in it
    scoring.py        names of metrics -> functions
    benchmark.py      the task that the runner asks
"""
