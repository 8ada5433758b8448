"""Memory and speed of a parallel layout before a GPU is rented, and the search for a good one.

layout.py     a workload, a layout of it, and whether the two fit together
kernels.py    what a framework's kernels keep in memory: Megatron-LM, torchtitan, Tsugiki
parameters.py how many parameters each process of each pipeline stage holds
activations.py, memory.py    bytes of every stage, part by part
verdict.py    safe, probe or refuse
devices.py    what accelerators can do; speed.py: seconds of a step
search.py     all legal layouts, ranked, and why the others were refused
emit.py       flags of Megatron-LM, a torchtitan configuration, lines of a recipe
calibrate.py  a few constants fitted to a user's own runs
measured.py   measured runs that come with the package
published.py  the estimate of arXiv 2411.06465 as its authors compute it

Everything is a function of frozen dataclasses; nothing here needs torch or a device.
"""
