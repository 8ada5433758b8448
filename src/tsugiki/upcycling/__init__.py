"""A dense model in, a mixture of experts out: Drop-Upcycling, its baselines, and proof of what was made.

config.py    what the stage reads; shapes.py: from a dense model's shape to that of the mixture
counts.py    parameters and operations as papers and model cards count them
experts.py   from a dense feed-forward to the experts: which neurons are drawn anew, and how
routers.py   how routers begin
draws.py     what is random: a seed of its own for every layer and expert, or the released code's order
weights.py   which stored tensor comes from which; shards.py: safetensors files written piece by piece
convert.py   files to files, one matrix in memory at a time
proof.py     the function kept, neurons kept, angles and norms, measured on what was written
"""
