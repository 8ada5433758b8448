"""The study of a table of models and benchmarks: what is measured in common, and what compute buys.

A plain library on numpy and scipy; it knows nothing of recipes. Axis letters of array names: M models,
B benchmarks, K components, R draws, F families, P parameters of a regression or law, N observations.
"""
