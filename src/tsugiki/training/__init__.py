"""Training a decoder, from scratch or onwards: the `train` stage and the library behind it.

stage.py        the door: Config, estimate, run
settings.py     the parts of Config
planning.py     what a run will take (tokens, FLOPs, memory, disk, hours), from shapes alone
devices.py      what planning assumes of devices
job.py          one run from its inputs to a model directory
loop.py         the steps
loss.py         output head and cross entropy in one, in chunks
optimizer.py    AdamW, parameter groups, learning-rate schedules
checkpoint.py   exact state on the disk, verified when read
validation.py   held-out bits per byte while training
"""
