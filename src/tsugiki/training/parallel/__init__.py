"""One model on many devices: data (FSDP2), tensor with sequence, context, pipeline and expert parallelism.

A layout never changes what is computed: the tests hold the loss of every layout against one process.
"""
