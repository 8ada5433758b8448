"""Recipes, their graphs, and running them: plan, run, resume, refuse on drift.

Reading order: recipe.py (YAML to typed stages), graph.py (what reads what), sources.py (paths, globs, hub
ids), identities.py (what each result is made from), states.py (what is on disk), planning.py, running.py,
worker.py (the process in which one stage runs).
"""
