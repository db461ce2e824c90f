#!/usr/bin/env python3
"""Writes derivatives.bin: value, first and second derivatives of the operations.

Needs mpmath (gmpy2 makes it faster, without changing a digit), best in an
environment of its own. Run without arguments it rewrites the committed file
beside it:

    python3 -m venv references
    references/bin/pip install mpmath gmpy2
    references/bin/python derivatives.py

The operands are drawn as in functions.py, and every result is computed there
too: at two working precisions of 160 bits and more, raised until both agree
to 100 bits. A point at which the value or a derivative is not defined is left
out; the edges have tests of their own.

The file holds a block for each operation: a line of text,

    name operands variables points

and then the points, each of its operands as little-endian f64 and its results:
the value, the derivative by each variable, and the second derivatives by each
pair of variables i ≤ j, in order. The operands beyond the variables are
constants. A result is the nearest f64 and a signed byte, the exact result less
that number in 256ths of its unit in the last place. As in functions.py, an
infinite number stands for 2^1024 where the byte is not 0.
"""

import argparse
import struct
from pathlib import Path

from mpmath import mp, mpf

from functions import (
    ANY_PAIR, FUNCTIONS, GAMMA, LN_ZERO, NAN, POW_DRAWS, Draw, around, capped_exp, close, evaluate, falling, fixed, gamma_log, gauss,
    half_even, logaddexp, mix, near, pair, positive, psi, scaled_power, size, softplus, split, subnormal, wide,
)


def operands_of(name):
    return FUNCTIONS[name][1]


def value_of(name):
    return FUNCTIONS[name][0]


def capped(x, cap=2000):
    """x, or a number far beyond the range in which the result changes."""
    return max(min(x, mpf(cap)), mpf(-cap))


def power_slope(k):
    """∂ᵏ/∂xᵏ of x^y."""

    def slope(x, y):
        factor = falling(y, k)
        return factor * scaled_power(x, y, k) if factor != 0 else mpf(0)

    return slope


def sech2(x):
    return 1 / mp.cosh(capped(x)) ** 2


def logistic(x):
    return 1 / (1 + capped_exp(-x))


def logistic_slope(x):
    return logistic(x) * logistic(-x)


def logistic_curve(x):
    return -mp.tanh(capped(x) / 2) * logistic_slope(x)


def log_base(x, b):
    return mp.log(x) / mp.log(b)


def polar(f):
    """f(x, y, x² + y²)."""
    return lambda x, y: f(x, y, x * x + y * y)


def swapped(f):
    """The operands of atan2 are y and x."""
    return lambda y, x: f(x, y, x * x + y * y)


def zero(*_):
    return mpf(0)


def one(*_):
    return mpf(1)


def minus_one(*_):
    return mpf(-1)


FEW_POWERS = pair(positive, fixed(0.5, 1.5, 2.0, -1.0, -0.5, 3.0, 1 / 3, 1.0, 0.0, 1e-3, -1e-3, 2.5, 100.0))
PAIR_OF_ANY = mix(*ANY_PAIR, pair(near(-300, 300), near(-300, 300)), close(-53, -1),
                  pair(near(900, 1024), near(900, 1024)), pair(near(-1074, -1000), near(-1074, -1000)),
                  pair(near(-30, 30), near(-30, 30)))


# Name: how many operands are variables, the operands, value, first and second derivatives.
OPERATIONS = {
    "add": (2, PAIR_OF_ANY, lambda x, y: x + y, [one, one], [zero, zero, zero]),
    "sub": (2, PAIR_OF_ANY, lambda x, y: x - y, [one, minus_one], [zero, zero, zero]),
    "mul": (2, PAIR_OF_ANY, lambda x, y: x * y, [lambda x, y: y, lambda x, y: x], [zero, one, zero]),
    "div": (2, PAIR_OF_ANY, lambda x, y: x / y, [lambda x, y: 1 / y, lambda x, y: -x / y**2],
            [zero, lambda x, y: -1 / y**2, lambda x, y: 2 * x / y**3]),
    "recip": (1, mix(wide, near(-4, 4), near(-300, 300), subnormal), lambda x: 1 / x, [lambda x: -1 / x**2], [lambda x: 2 / x**3]),
    "powi": (1, operands_of("powi"), lambda x, n: scaled_power(x, n), [power_slope(1)], [power_slope(2)]),
    "powf": (1, mix(*POW_DRAWS, FEW_POWERS), lambda x, y: scaled_power(x, y), [power_slope(1)], [power_slope(2)]),
    "pow": (2, mix(*POW_DRAWS), lambda x, y: scaled_power(x, y),
            [power_slope(1), lambda x, y: scaled_power(x, y) * mp.log(x)],
            [power_slope(2), lambda x, y: scaled_power(x, y, 1) * (1 + y * mp.log(x)), lambda x, y: scaled_power(x, y) * mp.log(x) ** 2]),
    "sqrt": (1, operands_of("sqrt"), mp.sqrt, [lambda x: 1 / (2 * mp.sqrt(x))], [lambda x: -1 / (4 * x * mp.sqrt(x))]),
    "cbrt": (1, operands_of("cbrt"), value_of("cbrt"), [lambda x: mp.cbrt(abs(x)) / (3 * abs(x))],
             [lambda x: -2 * mp.cbrt(abs(x)) / (9 * abs(x) * x)]),
    "hypot": (2, operands_of("hypot"), mp.hypot, [lambda x, y: x / mp.hypot(x, y), lambda x, y: y / mp.hypot(x, y)],
              [lambda x, y: y * y / mp.hypot(x, y) ** 3, lambda x, y: -x * y / mp.hypot(x, y) ** 3, lambda x, y: x * x / mp.hypot(x, y) ** 3]),
    "exp": (1, operands_of("exp"), capped_exp, [capped_exp], [capped_exp]),
    "exp2": (1, operands_of("exp2"), lambda x: mp.power(2, capped(x)), [lambda x: mp.ln2 * mp.power(2, capped(x))],
             [lambda x: mp.ln2**2 * mp.power(2, capped(x))]),
    "exp_m1": (1, operands_of("exp_m1"), value_of("exp_m1"), [capped_exp], [capped_exp]),
    "ln": (1, operands_of("ln"), mp.log, [lambda x: 1 / x], [lambda x: -1 / x**2]),
    "log2": (1, operands_of("log2"), lambda x: mp.log(x) / mp.ln2, [lambda x: 1 / (x * mp.ln2)], [lambda x: -1 / (x**2 * mp.ln2)]),
    "log10": (1, operands_of("log10"), lambda x: mp.log(x) / mp.ln10, [lambda x: 1 / (x * mp.ln10)], [lambda x: -1 / (x**2 * mp.ln10)]),
    "log": (2, mix(pair(size(-300, 300), size(-300, 300)), pair(size(-4, 5), size(-4, 5)), pair(around(1.0, -53, -1), size(-4, 5)),
                   pair(size(-4, 10), around(1.0, -53, -1)), pair(size(-300, 300), fixed(2.0, 10.0, 3.0, 0.5))), log_base, [lambda x, b: 1 / (x * mp.log(b)), lambda x, b: -mp.log(x) / (b * mp.log(b) ** 2)],
            [lambda x, b: -1 / (x**2 * mp.log(b)), lambda x, b: -1 / (x * b * mp.log(b) ** 2),
             lambda x, b: mp.log(x) * (mp.log(b) + 2) / (b**2 * mp.log(b) ** 3)]),
    "ln_1p": (1, operands_of("ln_1p"), mp.log1p, [lambda x: 1 / (1 + x)], [lambda x: -1 / (1 + x) ** 2]),
    "sin": (1, operands_of("sin"), mp.sin, [mp.cos], [lambda x: -mp.sin(x)]),
    "cos": (1, operands_of("cos"), mp.cos, [lambda x: -mp.sin(x)], [lambda x: -mp.cos(x)]),
    "tan": (1, operands_of("tan"), mp.tan, [lambda x: 1 / mp.cos(x) ** 2], [lambda x: 2 * mp.sin(x) / mp.cos(x) ** 3]),
    "asin": (1, operands_of("asin"), mp.asin, [lambda x: 1 / mp.sqrt(1 - x * x)], [lambda x: x / mp.sqrt(1 - x * x) ** 3]),
    "acos": (1, operands_of("acos"), mp.acos, [lambda x: -1 / mp.sqrt(1 - x * x)], [lambda x: -x / mp.sqrt(1 - x * x) ** 3]),
    "atan": (1, operands_of("atan"), mp.atan, [lambda x: 1 / (1 + x * x)], [lambda x: -2 * x / (1 + x * x) ** 2]),
    "atan2": (2, operands_of("atan2"), mp.atan2, [swapped(lambda x, y, s: x / s), swapped(lambda x, y, s: -y / s)],
              [swapped(lambda x, y, s: -2 * x * y / s**2), swapped(lambda x, y, s: (y * y - x * x) / s**2), swapped(lambda x, y, s: 2 * x * y / s**2)]),
    "sinh": (1, operands_of("sinh"), value_of("sinh"), [value_of("cosh")], [value_of("sinh")]),
    "cosh": (1, operands_of("cosh"), value_of("cosh"), [value_of("sinh")], [value_of("cosh")]),
    "tanh": (1, operands_of("tanh"), value_of("tanh"), [sech2], [lambda x: -2 * mp.tanh(capped(x)) * sech2(x)]),
    "asinh": (1, operands_of("asinh"), mp.asinh, [lambda x: 1 / mp.sqrt(1 + x * x)], [lambda x: -x / mp.sqrt(1 + x * x) ** 3]),
    "acosh": (1, operands_of("acosh"), lambda x: mp.acosh(x) if x >= 1 else NAN, [lambda x: 1 / mp.sqrt(x * x - 1)], [lambda x: -x / mp.sqrt(x * x - 1) ** 3]),
    "atanh": (1, operands_of("atanh"), mp.atanh, [lambda x: 1 / (1 - x * x)], [lambda x: 2 * x / (1 - x * x) ** 2]),
    "logistic": (1, operands_of("logistic"), logistic, [logistic_slope], [logistic_curve]),
    "softplus": (1, operands_of("softplus"), softplus, [logistic], [logistic_slope]),
    "logaddexp": (2, operands_of("logaddexp"), logaddexp, [lambda a, b: logistic(a - b), lambda a, b: logistic(b - a)],
                  [lambda a, b: logistic_slope(a - b), lambda a, b: -logistic_slope(a - b), lambda a, b: logistic_slope(a - b)]),
    "xlogx": (1, operands_of("xlogx"), lambda x: x * mp.log(x), [lambda x: 1 + mp.log(x)], [lambda x: 1 / x]),
    "xlogy": (2, mix(*LN_ZERO), lambda x, y: x * mp.log(y), [lambda x, y: mp.log(y), lambda x, y: x / y],
              [zero, lambda x, y: 1 / y, lambda x, y: -x / y**2]),
    "erf": (1, operands_of("erf"), mp.erf, [gauss], [lambda x: -2 * x * gauss(x)]),
    "erfc": (1, operands_of("erfc"), mp.erfc, [lambda x: -gauss(x)], [lambda x: 2 * x * gauss(x)]),
    "lgamma": (1, mix(*GAMMA), gamma_log, [psi(0)], [psi(1)]),
    "digamma": (1, mix(*GAMMA), psi(0), [psi(1)], [psi(2)]),
}

def result(value):
    word, rest = split(value)
    part = max(-127, min(127, int(half_even(mpf(256 * float(rest))))))
    return bytes.fromhex(word)[::-1] + struct.pack("<b", part)


def record(name, operands):
    """The bytes of one point, or nothing where something is not defined."""
    _, _, value, first, second = OPERATIONS[name]
    point = struct.pack(f"<{len(operands)}d", *map(float, operands))
    for function in (value, *first, *second):
        try:
            exact = evaluate(function, operands)
        except ZeroDivisionError:
            return None
        if mp.isnan(exact) or mp.isinf(exact):
            return None
        point += result(exact)
    return point


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1000, help="points of an operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="operations, separated by commas")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("derivatives.bin"))
    arguments = parser.parse_args()
    with arguments.output.open("wb") as out:
        for name in [n for n in arguments.only.split(",") if n] or list(OPERATIONS):
            variables, generate = OPERATIONS[name][:2]
            draw, points, length = Draw(f"{arguments.seed} derivatives of {name}"), [], 0
            for operands in generate(draw, 10 * arguments.points):
                length = len(operands)
                point = record(name, operands)
                if point is not None:
                    points.append(point)
                if len(points) == arguments.points:
                    break
            out.write(f"{name} {length} {variables} {len(points)}\n".encode() + b"".join(points))


if __name__ == "__main__":
    main()
