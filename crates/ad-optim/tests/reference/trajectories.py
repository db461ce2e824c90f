"""Reference trajectories of the update rules, to 40 significant digits.

Writes trajectories.csv beside this file. The tests read the csv alone; run this by hand after a
change, with `pip install mpmath` and `python3 trajectories.py`.

Settings and data are written as decimals and used as the IEEE doubles nearest to them, which is
what a Rust program is given; everything after that is computed with 60 digits. The rules are
transcribed from their papers, or from the named library where the paper leaves the matter open,
not from the Rust code.
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
BATCHES = [range(i, min(i + BATCH, len(LABELS))) for i in range(0, len(LABELS), BATCH)]


def quadratic(x, _step):
    return [2 * x[0], 2 * x[1]]


def rosenbrock(x, _step):
    valley = x[1] - x[0] ** 2
    return [-2 * (1 - x[0]) - 400 * x[0] * valley, 200 * valley]


def logistic(theta, step):
    """The mean of ln(1 + exp(-y (theta . (features, 1)))) over the batch whose turn it is."""
    batch = BATCHES[(step - 1) % len(BATCHES)]
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

# A rule is a function (t, x, g, state, settings) -> step to subtract. It works on one component; `state` is a
# dictionary of that component, in which what is not there yet counts as 0.


def sgd(t, x, g, s, rate, momentum=0.0, nesterov=0):
    s["v"] = momentum * s.get("v", 0) + g
    return rate * (g + momentum * s["v"] if nesterov else s["v"])


def moments(t, g, s, beta1, beta2):
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
    return s["m"] / (1 - beta1**t), s["v"] / (1 - beta2**t)


def adam(t, x, g, s, rate, beta1, beta2, eps, l2=0):
    """Algorithm 1 of arXiv:1412.6980; l2 as weight_decay of torch's Adam."""
    m_hat, v_hat = moments(t, g + l2 * x, s, beta1, beta2)
    return rate * m_hat / (mp.sqrt(v_hat) + eps)


def adamw(t, x, g, s, rate, beta1, beta2, eps, decay):
    """Algorithm 2 of arXiv:1711.05101, the decay multiplied by the rate as in torch and optax."""
    return adam(t, x, g, s, rate, beta1, beta2, eps) + rate * decay * x


def amsgrad_reddi(t, x, g, s, rate, beta1, beta2, eps):
    """Algorithm 2 of Reddi et al. 2018, with eps."""
    moments(t, g, s, beta1, beta2)
    s["w"] = max(s.get("w", 0), s["v"])
    return rate * s["m"] / (mp.sqrt(s["w"]) + eps)


def amsgrad_torch(t, x, g, s, rate, beta1, beta2, eps):
    """_single_tensor_adam of torch/optim/adam.py."""
    moments(t, g, s, beta1, beta2)
    s["w"] = max(s.get("w", 0), s["v"])
    return rate / (1 - beta1**t) * s["m"] / (mp.sqrt(s["w"]) / mp.sqrt(1 - beta2**t) + eps)


def amsgrad_optax(t, x, g, s, rate, beta1, beta2, eps):
    """scale_by_amsgrad of optax."""
    m_hat, v_hat = moments(t, g, s, beta1, beta2)
    s["w"] = max(s.get("w", 0), v_hat)
    return rate * m_hat / (mp.sqrt(s["w"]) + eps)


def rmsprop(t, x, g, s, rate, decay, eps, inside=0, centered=0, momentum=0, nesterov=0):
    s["v"] = decay * s.get("v", 0) + (1 - decay) * g**2
    spread = s["v"]
    if centered:
        s["g"] = decay * s.get("g", 0) + (1 - decay) * g
        spread -= s["g"] ** 2
    u = g / (mp.sqrt(spread + eps) if inside else mp.sqrt(spread) + eps)
    s["b"] = momentum * s.get("b", 0) + u
    return rate * (u + momentum * s["b"] if nesterov else s["b"])


def adagrad(t, x, g, s, rate, eps, inside=0, initial=0):
    s["sum"] = s.get("sum", initial) + g**2
    return rate * g / (mp.sqrt(s["sum"] + eps) if inside else mp.sqrt(s["sum"]) + eps)


def adamax(t, x, g, s, rate, beta1, beta2, eps):
    """Algorithm 2 of arXiv:1412.6980, with eps where torch and optax have it."""
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["u"] = max(beta2 * s.get("u", 0), abs(g) + eps)
    return rate / (1 - beta1**t) * s["m"] / s["u"]


def nadam(t, x, g, s, rate, beta1, beta2, eps, psi):
    """torch's NAdam; a negative psi stands for the constant momentum of optax."""

    def mu(t):
        return beta1 * (1 - mpf(1) / 2 * mpf(0.96) ** (t * psi)) if psi >= 0 else beta1

    _, v_hat = moments(t, g, s, beta1, beta2)
    s["product"] = s.get("product", mpf(1)) * mu(t)
    m_hat = mu(t + 1) * s["m"] / (1 - s["product"] * mu(t + 1)) + (1 - mu(t)) * g / (1 - s["product"])
    return rate * m_hat / (mp.sqrt(v_hat) + eps)


def each(rule, gradient, x, settings, factor=lambda t: 1, transform=lambda g: g, project=lambda x: x):
    """Runs a rule of one component: `transform` acts on the gradient, `factor` on the step, `project` on the point."""
    states = [{} for _ in x]
    x = project(x)
    for t in range(1, max(STEPS) + 1):
        g = transform(gradient(x, t))
        steps = [rule(t, xi, gi, si, **settings) for xi, gi, si in zip(x, g, states)]
        x = project([xi - factor(t) * d for xi, d in zip(x, steps)])
        yield t, x


def clip_norm(most):
    def clip(g):
        length = mp.sqrt(sum(gi**2 for gi in g))
        return [gi * most / length for gi in g] if length > most else g

    return clip


def clipped_adam_decay(gradient, x, norm, **settings):
    """(ClipNorm, Adam, WeightDecay)."""
    return each(adamw, gradient, x, settings, transform=clip_norm(norm))


def value_clipped(gradient, x, most, **settings):
    return each(sgd, gradient, x, settings, transform=lambda g: [max(-most, min(most, gi)) for gi in g])


def boxed(gradient, x, lower, upper, **settings):
    return each(sgd, gradient, x, settings, project=lambda x: [max(lower, min(upper, xi)) for xi in x])


def cosine_adamw(gradient, x, total, warm_up, end, **settings):
    def factor(t):
        t = mpf(t - 1)
        if t < warm_up:
            return (t + 1) / (warm_up + 1)
        fraction = min(1, (t - warm_up) / (total - warm_up))
        return end + (1 - end) * (1 + mp.cos(mp.pi * fraction)) / 2

    return each(adamw, gradient, x, settings, factor=factor)


def one_cycle(gradient, x, total, **settings):
    """OneCycleLR of torch, with the rate itself as max_lr and cycle_momentum=False."""

    def factor(t):
        t, peak, last = mpf(t - 1), mpf(3) / 10 * total - 1, total - 1
        if t <= peak:
            begin, end, fraction = mpf(1) / 25, mpf(1), t / peak
        else:
            begin, end, fraction = mpf(1), mpf(1) / 25 / 10000, min(1, (t - peak) / (last - peak))
        return end + (begin - end) / 2 * (1 + mp.cos(mp.pi * fraction))

    return each(sgd, gradient, x, settings, factor=factor)


def polynomial(gradient, x, total, power, end, **settings):
    def factor(t):
        return (1 - end) * (1 - min(1, mpf(t - 1) / total)) ** power + end

    return each(sgd, gradient, x, settings, factor=factor)


def stepped(gradient, x, every, gamma, **settings):
    return each(sgd, gradient, x, settings, factor=lambda t: gamma ** mp.floor((t - 1) / every))


def exponential(gradient, x, gamma, **settings):
    return each(sgd, gradient, x, settings, factor=lambda t: gamma ** (t - 1))


def grouped(gradient, x, rate0, rate1, **settings):
    """The first component by gradient descent, the others by Adam."""
    states = [{} for _ in x]
    for t in range(1, max(STEPS) + 1):
        g = gradient(x, t)
        first = sgd(t, x[0], g[0], states[0], rate0)
        others = [adam(t, *xgs, rate1, **settings) for xgs in list(zip(x, g, states))[1:]]
        x = [xi - d for xi, d in zip(x, [first, *others])]
        yield t, x


def accumulated(gradient, x, every, **settings):
    """Adam on the mean over `every` batches, weighted by their sizes."""
    states, sums, count = [{} for _ in x], [mpf(0)] * len(x), 0
    for t in range(1, max(STEPS) + 1):
        size = len(BATCHES[(t - 1) % len(BATCHES)]) if gradient is logistic else 1
        sums = [si + size * gi for si, gi in zip(sums, gradient(x, t))]
        count += size
        if t % every == 0:
            g = [si / count for si in sums]
            steps = [adam(t // int(every), xi, gi, si, **settings) for xi, gi, si in zip(x, g, states)]
            x = [xi - d for xi, d in zip(x, steps)]
            sums, count = [mpf(0)] * len(x), 0
        yield t, x


BETAS = {"beta1": 0.9, "beta2": 0.999}
OTHER_BETAS = {"beta1": 0.8, "beta2": 0.95}
SMALL, LARGE = {"eps": 1e-8}, {"eps": 1e-2}

# Rule, its function, settings, then the rates for quadratic, rosenbrock and logistic (None: no such case). A large eps
# tells the places apart where it could be added.
CASES = [
    ("gd", sgd, {}, (0.1, 0.001, 0.5)),
    ("momentum", sgd, {"momentum": 0.9}, (0.05, 0.0002, 0.1)),
    ("nesterov", sgd, {"momentum": 0.9, "nesterov": 1}, (0.05, 0.0002, 0.1)),
    ("adam", adam, BETAS | SMALL, (0.1, 0.01, 0.05)),
    ("adam", adam, BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("adam", adam, OTHER_BETAS | LARGE, (None, None, 0.05)),
    ("adam_l2", adam, BETAS | LARGE | {"l2": 0.1}, (0.1, 0.01, 0.05)),
    ("adamw", adamw, BETAS | LARGE | {"decay": 0.1}, (0.1, 0.01, 0.05)),
    ("amsgrad_reddi", amsgrad_reddi, BETAS | LARGE, (0.05, 0.005, 0.05)),
    ("amsgrad_reddi", amsgrad_reddi, OTHER_BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("amsgrad_torch", amsgrad_torch, BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("amsgrad_torch", amsgrad_torch, OTHER_BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("amsgrad_optax", amsgrad_optax, BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("amsgrad_optax", amsgrad_optax, OTHER_BETAS | LARGE, (0.1, 0.01, 0.05)),
    # Rates of 0.01 make RMSprop hop across Rosenbrock's valley, where roundings grow to the size of the hops.
    ("rmsprop", rmsprop, {"decay": 0.9} | LARGE, (0.01, 0.001, 0.01)),
    ("rmsprop", rmsprop, {"decay": 0.99} | SMALL, (0.01, 0.001, 0.01)),
    ("rmsprop", rmsprop, {"decay": 0.9, "inside": 1} | LARGE, (0.01, 0.001, 0.01)),
    ("rmsprop", rmsprop, {"decay": 0.9, "centered": 1} | LARGE, (0.001, 0.001, 0.01)),
    ("rmsprop", rmsprop, {"decay": 0.9, "momentum": 0.5} | LARGE, (0.01, 0.001, 0.01)),
    ("rmsprop", rmsprop, {"decay": 0.9, "momentum": 0.5, "nesterov": 1, "inside": 1, "centered": 1} | LARGE,
     (0.001, 0.001, 0.01)),
    ("adagrad", adagrad, LARGE, (0.1, 0.1, 0.1)),
    ("adagrad", adagrad, LARGE | {"inside": 1, "initial": 0.1}, (0.1, 0.1, 0.1)),
    ("adamax", adamax, BETAS | LARGE, (0.1, 0.01, 0.05)),
    ("adamax", adamax, OTHER_BETAS | SMALL, (0.1, 0.01, 0.05)),
    ("nadam", nadam, BETAS | LARGE | {"psi": 0.004}, (0.1, 0.01, 0.05)),
    ("nadam", nadam, BETAS | LARGE | {"psi": 1.0}, (0.1, 0.01, 0.05)),
    ("nadam", nadam, BETAS | SMALL | {"psi": -1.0}, (0.1, 0.01, 0.05)),
    ("clipped_adam_decay", clipped_adam_decay, BETAS | LARGE | {"norm": 1.0, "decay": 0.01}, (0.1, 0.01, 0.05)),
    ("value_clipped", value_clipped, {"most": 0.125}, (0.1, 0.01, 0.5)),
    ("boxed", boxed, {"lower": -1.1, "upper": 0.3}, (0.1, 0.001, 0.5)),
    ("cosine_adamw", cosine_adamw, BETAS | LARGE | {"decay": 0.1, "total": 80.0, "warm_up": 10.0, "end": 0.1},
     (0.1, 0.01, 0.05)),
    ("one_cycle", one_cycle, {"total": 90.0}, (0.1, 0.001, 0.5)),
    ("polynomial", polynomial, {"total": 120.0, "power": 1.5, "end": 0.25}, (0.1, 0.001, 0.5)),
    ("stepped", stepped, {"every": 2.0, "gamma": 0.9}, (0.1, 0.001, 0.5)),
    ("exponential", exponential, {"gamma": 0.97}, (0.1, 0.001, 0.5)),
    ("accumulated", accumulated, BETAS | LARGE | {"every": 2.0}, (0.1, 0.01, 0.05)),
]
GROUPED = [("grouped", BETAS | LARGE | {"rate0": r0, "rate1": r1})
           for r0, r1 in [(0.1, 0.05), (0.001, 0.01), (0.5, 0.05)]]
COMPONENTWISE = {sgd, adam, adamw, amsgrad_reddi, amsgrad_torch, amsgrad_optax, rmsprop, adagrad, adamax, nadam}


def trajectory(problem, function, settings):
    gradient, start = PROBLEMS[problem]
    x = [mpf(c) for c in start]
    settings = {name: mpf(value) for name, value in settings.items()}
    if function in COMPONENTWISE:
        return each(function, gradient, x, settings)
    return function(gradient, x, **settings)


def cases():
    for rule, function, settings, rates in CASES:
        for problem, rate in zip(PROBLEMS, rates):
            if rate is not None:
                yield problem, rule, function, {"rate": rate} | settings
    for problem, (rule, settings) in zip(PROBLEMS, GROUPED):
        yield problem, rule, grouped, settings


def main():
    path = pathlib.Path(__file__).with_name("trajectories.csv")
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["problem", "rule", "settings", "step", "component", "x"])
        for problem, rule, function, settings in cases():
            text = " ".join(f"{name}={value}" for name, value in settings.items())
            for step, x in trajectory(problem, function, settings):
                if step in STEPS:
                    for component, value in enumerate(x):
                        number = mp.nstr(value, 40, min_fixed=0, max_fixed=0)
                        out.writerow([problem, rule, text, step, component, number])


if __name__ == "__main__":
    main()
