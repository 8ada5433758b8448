"""A model judges answers about images, as in Heron-Bench (arXiv 2404.07824), with errors that can be seen.

    prompts.yaml   what the judge is told, by category: data, not code
    questions.py   questions and answers from JSON lines; the prompt of a question
    client.py      one request to any address that speaks OpenAI's chat protocol
    judging.py     every question in one order or both, kept as JSON lines, resumable, replayed
    scoring.py     relative scores by category, intervals, differences, and what went wrong

The published script counts an answer that can't be read as -1 for both sides, appends every earlier question
to each request (its payload is copied shallowly), and asks in one order only, where judges prefer a side.
"""
