"""What the digits mixtures are measured against: no mixture at all."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_limits

from inference.shared.table import Row
from inference.training.tasks import Task
from models.data import DigitsSplit
from models.digits import DigitsMixture

_STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # C, the inverse of the regularisation


def single_network(task: Task) -> Task:
    """The digits with one network of an expert's size, trained alone: what the mixtures have to beat."""
    return replace(task, model=partial(DigitsMixture, num_experts=1), capacity=task.data.batch_size)


def logistic_regression(split: DigitsSplit) -> Row:
    """The row of scikit-learn's multinomial logistic regression, tuned by cross-validation on the training part."""
    train_x, train_y, test_x, test_y = (np.asarray(part) for part in split)
    began = time.perf_counter()
    search = GridSearchCV(LogisticRegression(max_iter=5000), {"C": list(_STRENGTHS)}, cv=3)
    with threadpool_limits(1):  # threads that wait for each other make it twenty times as slow on matrices this small
        search.fit(train_x, train_y)
    log_probs = search.best_estimator_.predict_log_proba(test_x)
    loss = -float(np.mean(log_probs[np.arange(len(test_y)), test_y]))
    on_training = search.best_estimator_.predict_log_proba(train_x)[np.arange(len(train_y)), train_y]
    accuracy = float(np.mean(np.argmax(log_probs, axis=1) == test_y))
    return {
        "data": "digits",
        "router": "logistic_regression",
        "kind": "reference",
        "starts": 1,
        "steps": None,
        **dict.fromkeys(("true_loss_median", "own_loss_median", "argmax_loss_median"), loss),
        "training_loss_median": -float(np.mean(on_training)),
        **dict.fromkeys(("accuracy_median", "argmax_accuracy_median"), accuracy),
        **dict.fromkeys(("log_likelihood_median", "mixture_log_likelihood_median"), -loss),
        **dict.fromkeys(("skipped", "max_load", "max_demand")),
        "C": search.best_params_["C"],
        "run_seconds": round(time.perf_counter() - began, 2),
    }
