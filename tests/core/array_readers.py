"""Readers of toy samples that lie in memory."""

import toy_plugins

from bench.contracts.backend import BackendError
from bench.contracts.reader import Reader

X, Y = toy_plugins.toy_arrays()


class ArrayReader(Reader):
    def __init__(self) -> None:
        super().__init__(len(Y), X.shape[1:], X.dtype)

    def read_into(self, indices, x, y) -> None:
        x.numpy()[:] = X[indices]
        y.numpy()[:] = Y[indices]


class FailingReader(ArrayReader):
    def read_into(self, indices, x, y) -> None:
        if 250 in indices:
            raise BackendError("sample 250 cannot be read.")
        super().read_into(indices, x, y)
