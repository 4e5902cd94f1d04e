"""How well predictions match labels, by scikit-learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.records.learned import ClassInfo, EvaluationInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def evaluate(
    true: NDArray[np.int64],
    predicted: NDArray[np.int64],
    classes: tuple[str, ...],
    *,
    loss: float,
    split: str,
    epoch: int,
    evaluate_s: float,
    detailed: bool,
) -> EvaluationInfo:
    """Compare ``predicted`` with ``true``, both ``(samples,)``, indices of ``classes``; at least one sample.

    ``loss`` is the mean over the samples, in nats; ``evaluate_s`` what delivering them and predicting took, in
    seconds. Only a ``detailed`` evaluation has the table of classes and the confusion matrix.

    Averages are those of ``sklearn.metrics.precision_recall_fscore_support`` with ``zero_division=0`` and its own
    choice of labels: a class that no sample has and none was taken for is no part of the macro average; otherwise an
    undefined share (the precision of a class that was never predicted, the recall of one without samples) counts as 0.
    In the table of classes it is None.
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    macro = precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
    weighted = precision_recall_fscore_support(true, predicted, average="weighted", zero_division=0)
    per_class, confusion = [], None
    if detailed:
        labels = np.arange(len(classes))
        shares = precision_recall_fscore_support(true, predicted, labels=labels, zero_division=np.nan)
        per_class = [
            ClassInfo(name=name, precision=_known(p), recall=_known(r), f1=_known(f1), support=int(support))
            for name, p, r, f1, support in zip(classes, *shares, strict=True)
        ]
        confusion = confusion_matrix(true, predicted, labels=labels).tolist()
    return EvaluationInfo(
        split=split,
        epoch=epoch,
        samples=len(true),
        loss=loss,
        accuracy=float(accuracy_score(true, predicted)),
        macro_precision=float(macro[0]),
        macro_recall=float(macro[1]),
        macro_f1=float(macro[2]),
        weighted_precision=float(weighted[0]),
        weighted_recall=float(weighted[1]),
        weighted_f1=float(weighted[2]),
        per_class=per_class,
        confusion=confusion,
        evaluate_s=evaluate_s,
    )


def _known(share: float) -> float | None:
    return None if math.isnan(share) else float(share)
