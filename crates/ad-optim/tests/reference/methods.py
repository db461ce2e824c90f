"""Reference trajectories of the methods that ask for more than one gradient a step, to 40 significant digits.

Writes methods.csv beside this file. The tests read the csv alone; run this by hand after a change, with
`pip install mpmath` and `python3 methods.py`.

L-BFGS is transcribed from algorithms 7.4, 3.5 and 3.6 of Nocedal and Wright (2006) with the safeguards that the
documentation of `Lbfgs` states; Levenberg-Marquardt and Gauss-Newton solve their normal equations, in 60 digits.
"""

import csv
import pathlib

from mpmath import lu_solve, matrix, mp, mpf

from trajectories import FEATURES, LABELS

mp.dps = 60
# Later the roundings of doubles have grown beyond what is compared.
STEPS = [1, 2, 3, 4, 5, 8, 12]


def quadratic(x):
    return x[0] ** 2 + x[1] ** 2 + 6, [2 * x[0], 2 * x[1]]


def rosenbrock(x):
    a, b = 1 - x[0], x[1] - x[0] ** 2
    return a**2 + 100 * b**2, [-2 * a - 400 * x[0] * b, 200 * b]


def logistic(theta):
    """The mean over all samples."""
    value, gradient = mpf(0), [mpf(0)] * len(theta)
    for features, label in zip(FEATURES, LABELS):
        row = [mpf(f) for f in features] + [mpf(1)]
        margin = label * sum(t * r for t, r in zip(theta, row))
        value += mp.log(1 + mp.exp(-margin)) / len(LABELS)
        weight = -label / (1 + mp.exp(margin)) / len(LABELS)
        gradient = [g + weight * r for g, r in zip(gradient, row)]
    return value, gradient


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def lbfgs(function, x, memory, c1, c2):
    memory, pairs = int(memory), []
    value, gradient = function(x)
    while True:
        q, coefficients = list(gradient), []
        for s, y in reversed(pairs):
            a = dot(s, q) / dot(s, y)
            coefficients.append(a)
            q = [qi - a * yi for qi, yi in zip(q, y)]
        if pairs:
            s, y = pairs[-1]
            q = [qi * dot(s, y) / dot(y, y) for qi in q]
        for (s, y), a in zip(pairs, reversed(coefficients)):
            b = dot(y, q) / dot(s, y)
            q = [qi + (a - b) * si for qi, si in zip(q, s)]
        first = mpf(1) if pairs else min(mpf(1), 1 / mp.sqrt(dot(gradient, gradient)))

        def along(a):
            f, g = function([xi - a * qi for xi, qi in zip(x, q)])
            return a, f, -dot(g, q), g

        start = (mpf(0), value, -dot(gradient, q), gradient)
        a, value, _, new = strong_wolfe(along, start, first, c1, c2)
        step = [-a * qi for qi in q]
        change = [n - g for n, g in zip(new, gradient)]
        pairs = (pairs + [(step, change)])[-memory:]
        x, gradient = [xi + si for xi, si in zip(x, step)], new
        yield x, mp.sqrt(dot(gradient, gradient))


def strong_wolfe(along, start, a, c1, c2):
    """Bracketing (algorithm 3.5), then zoom (3.6)."""

    def enough(p):
        return p[1] <= start[1] + c1 * p[0] * start[2]

    def flat(p):
        return abs(p[2]) <= -c2 * start[2]

    previous = start
    while True:
        p = along(a)
        if not enough(p) or (previous is not start and p[1] >= previous[1]):
            # A point that is good is taken before it is asked whether the one before was lower.
            if enough(p) and flat(p):
                return p
            low, high = previous, p
            break
        if flat(p):
            return p
        if p[2] >= 0:
            low, high = p, previous
            break
        previous, a = p, 2 * a
    while True:
        p = along(cubic(low, high))
        if enough(p) and flat(p):
            return p
        if not enough(p) or (low is not start and p[1] >= low[1]):
            high = p
        else:
            if p[2] * (high[0] - low[0]) >= 0:
                high = low
            low = p


def cubic(low, high):
    width = high[0] - low[0]
    d1 = low[2] + high[2] - 3 * (low[1] - high[1]) / (low[0] - high[0])
    root = d1**2 - low[2] * high[2]
    if root < 0:
        return low[0] + width / 2
    d2 = mp.sign(width) * mp.sqrt(root)
    a = high[0] - width * (high[2] + d2 - d1) / (high[2] - low[2] + 2 * d2)
    ends = sorted([low[0] + width / 10, high[0] - width / 10])
    return max(ends[0], min(ends[1], a))


# Residuals and their Jacobian.


def rosenbrock_residuals(x):
    return [10 * (x[1] - x[0] ** 2), 1 - x[0]], [[-20 * x[0], mpf(10)], [mpf(-1), mpf(0)]]


# The Misra1a problem of NIST StRD, from its first start.
MISRA1A = [
    (10.07, 77.6), (14.73, 114.9), (17.94, 141.1), (23.93, 190.8), (29.61, 239.9), (35.18, 289.0), (40.02, 332.8),
    (44.82, 378.4), (50.76, 434.8), (55.05, 477.3), (61.01, 536.8), (66.40, 593.1), (75.47, 689.1), (81.78, 760.0),
]


def misra1a_residuals(b):
    decays = [mp.exp(-b[1] * mpf(u)) for _, u in MISRA1A]
    residuals = [b[0] * (1 - e) - mpf(y) for e, (y, _) in zip(decays, MISRA1A)]
    return residuals, [[1 - e, b[0] * mpf(u) * e] for e, (_, u) in zip(decays, MISRA1A)]


def half_square(r):
    return dot(r, r) / 2


def levenberg_marquardt(function, x, damping):
    growth, scale = mpf(2), [mpf(0)] * len(x)
    while True:
        r, j = function(x)
        columns = list(zip(*j))
        scale = [max(s, mp.sqrt(dot(c, c))) for s, c in zip(scale, columns)]
        gradient = [dot(c, r) for c in columns]
        while True:
            normal = matrix([[dot(a, b) for b in columns] for a in columns])
            for i, s in enumerate(scale):
                normal[i, i] += damping * s**2
            delta = list(lu_solve(normal, matrix(gradient)))
            trial = [xi - d for xi, d in zip(x, delta)]
            decrease = half_square(r) - half_square(function(trial)[0])
            model = [dot(row, delta) for row in j]
            predicted = half_square(model) + damping * sum((s * d) ** 2 for s, d in zip(scale, delta))
            if decrease > 0:
                damping *= max(mpf(1) / 3, 1 - (2 * decrease / predicted - 1) ** 3)
                growth = mpf(2)
                break
            damping, growth = damping * growth, growth * 2
        x = trial
        yield x, mp.sqrt(dot(gradient, gradient))


def gauss_newton(function, x):
    while True:
        r, j = function(x)
        columns = list(zip(*j))
        gradient = [dot(c, r) for c in columns]
        normal = matrix([[dot(a, b) for b in columns] for a in columns])
        delta = list(lu_solve(normal, matrix(gradient)))
        along, a = dot(gradient, delta), mpf(1)
        while half_square(r) - half_square(function([xi - a * d for xi, d in zip(x, delta)])[0]) < along * a / 10000:
            a /= 2
        x = [xi - a * d for xi, d in zip(x, delta)]
        yield x, mp.sqrt(dot(gradient, gradient))


CASES = [
    ("quadratic", quadratic, [1.0, 1.0], "lbfgs", lbfgs, {"memory": 10.0, "c1": 1e-4, "c2": 0.9}),
    ("rosenbrock", rosenbrock, [-1.2, 1.0], "lbfgs", lbfgs, {"memory": 10.0, "c1": 1e-4, "c2": 0.9}),
    ("rosenbrock", rosenbrock, [-1.2, 1.0], "lbfgs", lbfgs, {"memory": 1.0, "c1": 1e-4, "c2": 0.9}),
    ("rosenbrock", rosenbrock, [-1.2, 1.0], "lbfgs", lbfgs, {"memory": 3.0, "c1": 1e-3, "c2": 0.1}),
    ("logistic", logistic, [0.25, -0.5, 0.75, 0.0], "lbfgs", lbfgs, {"memory": 10.0, "c1": 1e-4, "c2": 0.9}),
    ("logistic", logistic, [0.25, -0.5, 0.75, 0.0], "lbfgs", lbfgs, {"memory": 2.0, "c1": 1e-4, "c2": 0.1}),
    ("rosenbrock", rosenbrock_residuals, [-1.2, 1.0], "levenberg_marquardt", levenberg_marquardt, {"damping": 1e-3}),
    ("rosenbrock", rosenbrock_residuals, [-1.2, 1.0], "levenberg_marquardt", levenberg_marquardt, {"damping": 1.0}),
    ("misra1a", misra1a_residuals, [500.0, 0.0001], "levenberg_marquardt", levenberg_marquardt, {"damping": 1e-3}),
    ("rosenbrock", rosenbrock_residuals, [-1.2, 1.0], "gauss_newton", gauss_newton, {}),
    ("misra1a", misra1a_residuals, [250.0, 0.0005], "gauss_newton", gauss_newton, {}),
]


def main():
    path = pathlib.Path(__file__).with_name("methods.csv")
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["problem", "rule", "settings", "step", "component", "x"])
        for problem, function, start, rule, method, settings in CASES:
            text = " ".join(f"{name}={value}" for name, value in settings.items())
            x = [mpf(c) for c in start]
            points = method(function, x, **{name: mpf(value) for name, value in settings.items()})
            for step in range(1, max(STEPS) + 1):
                x, slope = next(points)
                if step in STEPS:
                    for component, value in enumerate(x):
                        number = mp.nstr(value, 40, min_fixed=0, max_fixed=0)
                        out.writerow([problem, rule, text, step, component, number])
                # Changes of a small gradient have few digits in common with those of its doubles.
                if slope < mpf(10) ** -5:
                    break


if __name__ == "__main__":
    main()
