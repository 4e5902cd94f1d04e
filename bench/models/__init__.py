"""Reference networks. Each module has ``build…(shape, classes) -> nn.Module``.

``shape`` is that of one sample, channel first: (channels, height, width), or (channels, frequency, time). ``classes``
is the number of outputs. Samples are at least as large as the registry says. Where a study that a network is known
from leaves something open, its docstring says what was chosen.
"""
