"""Does the adapted model know more? Tasks, log-likelihoods, generations, and statistics that can be believed.

Read in this order:

    items.py        held-out pages, and what a question is
    tasks/          pages -> questions -> rows: bits per byte, next sentences (sentences.py), generations
    backend.py      the three things that a model must be able to answer, whoever runs it
    decoder.py      our decoder as a backend (windows.py, prefix.py; loading.py makes it from a directory)
    runner.py       every model answers every question, in units that survive a kill
    statistics.py   intervals and tests, plain numpy
    comparison.py   rows -> comparison.json (wording.py, alarms.py)
    stage.py        the door that a recipe uses (forecast.py: what it will cost)
"""
