"""Reference trajectories of the update rules, to 40 significant digits.

Writes trajectories.csv beside this file. The tests read the csv alone; run this by hand after a
change, with `pip install mpmath` and `python3 trajectories.py`.

Settings and data are written as decimals and used as the IEEE doubles nearest to them, which is
what a Rust program is given; everything after that is computed with 60 digits. The rules are
transcribed from their papers, not from the Rust code.
"""

import csv
import pathlib

from mpmath import mp, mpf

mp.dps = 60
STEPS = [1, 2, 3, 4, 5, 100]

# Eighths are exact in binary. The classes overlap, so that the minimum is finite.
FEATURES = [
    [0.5, 1.25, -0.75], [1.5, -0.25, 0.375], [-1.0, 0.625, 1.125], [0.25, -1.5, 0.5],
    [2.0, 0.75, -0.125], [-0.5, -0.875, 1.75], [1.125, 1.0, 0.25], [-1.75, 0.125, -0.625],
    [0.875, -0.5, -1.25], [-0.25, 1.625, 0.75], [0.375, 0.25, -1.5], [-1.375, -1.125, 0.125],
]
LABELS = [1, 1, -1, -1, 1, -1, 1, -1, 1, 1, -1, 1]
BATCH = 5


def quadratic(x, _step):
    return [2 * x[0], 2 * x[1]]


def rosenbrock(x, _step):
    valley = x[1] - x[0] ** 2
    return [-2 * (1 - x[0]) - 400 * x[0] * valley, 200 * valley]


def logistic(theta, step):
    """The mean of ln(1 + exp(-y (theta . (features, 1)))) over the batch whose turn it is."""
    batches = [range(i, min(i + BATCH, len(LABELS))) for i in range(0, len(LABELS), BATCH)]
    batch = batches[(step - 1) % len(batches)]
    gradient = [mpf(0)] * len(theta)
    for i in batch:
        row = [mpf(f) for f in FEATURES[i]] + [mpf(1)]
        margin = LABELS[i] * sum(t * r for t, r in zip(theta, row))
        weight = -LABELS[i] / (1 + mp.exp(margin))
        gradient = [g + weight * r for g, r in zip(gradient, row)]
    return [g / len(batch) for g in gradient]


PROBLEMS = {
    "quadratic": (quadratic, [1.0, 1.0]),
    "rosenbrock": (rosenbrock, [-1.2, 1.0]),
    "logistic": (logistic, [0.25, -0.5, 0.75, 0.0]),
}


def gradient_descent(gradient, x, rate, momentum, nesterov):
    rate, mu = mpf(rate), mpf(momentum)
    v = [mpf(0)] * len(x)
    for step in range(1, max(STEPS) + 1):
        g = gradient(x, step)
        v = [mu * vi + gi for vi, gi in zip(v, g)]
        d = [gi + mu * vi for gi, vi in zip(g, v)] if nesterov else v
        x = [xi - rate * di for xi, di in zip(x, d)]
        yield step, x


def adam(gradient, x, rate, beta1, beta2, eps):
    """Algorithm 1 of arXiv:1412.6980, line by line."""
    alpha, beta1, beta2, eps = mpf(rate), mpf(beta1), mpf(beta2), mpf(eps)
    m = [mpf(0)] * len(x)
    v = [mpf(0)] * len(x)
    for t in range(1, max(STEPS) + 1):
        g = gradient(x, t)
        m = [beta1 * mi + (1 - beta1) * gi for mi, gi in zip(m, g)]
        v = [beta2 * vi + (1 - beta2) * gi**2 for vi, gi in zip(v, g)]
        m_hat = [mi / (1 - beta1**t) for mi in m]
        v_hat = [vi / (1 - beta2**t) for vi in v]
        x = [xi - alpha * mi / (mp.sqrt(vi) + eps) for xi, mi, vi in zip(x, m_hat, v_hat)]
        yield t, x


# Problem, rule, rate, then momentum (gradient descent) or beta1, beta2, eps (Adam).
CASES = [
    ("quadratic", "gd", 0.1),
    ("rosenbrock", "gd", 0.001),
    ("logistic", "gd", 0.5),
    ("quadratic", "momentum", 0.05, 0.9),
    ("rosenbrock", "momentum", 0.0002, 0.9),
    ("logistic", "momentum", 0.1, 0.9),
    ("quadratic", "nesterov", 0.05, 0.9),
    ("rosenbrock", "nesterov", 0.0002, 0.9),
    ("logistic", "nesterov", 0.1, 0.9),
    ("quadratic", "adam", 0.1, 0.9, 0.999, 1e-8),
    ("rosenbrock", "adam", 0.01, 0.9, 0.999, 1e-8),
    ("logistic", "adam", 0.05, 0.9, 0.999, 1e-8),
    # A large eps tells the places apart where it could be added.
    ("quadratic", "adam", 0.1, 0.9, 0.999, 1e-2),
    ("rosenbrock", "adam", 0.01, 0.9, 0.999, 1e-2),
    ("logistic", "adam", 0.05, 0.9, 0.999, 1e-2),
    ("logistic", "adam", 0.05, 0.8, 0.95, 1e-2),
]


def trajectory(problem, rule, rate, *settings):
    gradient, start = PROBLEMS[problem]
    x = [mpf(c) for c in start]
    if rule == "adam":
        return adam(gradient, x, rate, *settings)
    return gradient_descent(gradient, x, rate, settings[0] if settings else 0.0, rule == "nesterov")


def main():
    path = pathlib.Path(__file__).with_name("trajectories.csv")
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["problem", "rule", "rate", "momentum", "beta1", "beta2", "eps", "step", "component", "x"])
        for problem, rule, rate, *settings in CASES:
            row = [problem, rule, rate]
            row += ["", *settings] if rule == "adam" else [settings[0] if settings else "", "", "", ""]
            for step, x in trajectory(problem, rule, rate, *settings):
                if step in STEPS:
                    for component, value in enumerate(x):
                        out.writerow([*row, step, component, mp.nstr(value, 40, min_fixed=0, max_fixed=0)])


if __name__ == "__main__":
    main()
