"""Reference networks. Each module has ``build…(shape, classes) -> nn.Module``.

``shape`` is that of one sample, channel first; ``classes`` is the number of outputs.
"""
