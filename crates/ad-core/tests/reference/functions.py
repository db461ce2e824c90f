#!/usr/bin/env python3
"""Writes functions.csv, the reference values of the elementary functions.

Needs mpmath (`pip install mpmath`; gmpy2 makes it faster, without changing a
digit). Run without arguments it rewrites the committed file beside it:

    python3 functions.py
    python3 functions.py --points 20000 --output many.csv --only exp,ln

Each line holds one point, after a header line:

    function,operands,value,rest

`operands` are the bits of the operands in hexadecimal, separated by spaces
(an integer operand is written as its two's complement); `value` is the exact
result rounded to the nearest f64, as bits, or `nan`; `rest` is the exact
result less `value`, in units of the last place of `value`, to six digits. A
unit of the last place keeps its meaning in the subnormal range, where the low
word of a pair of doubles would underflow. Past the largest f64 the spacing
of the last binade goes on: an infinite `value` stands for 2^1024, with a
`rest` of zero where the exact result lies further above.

Every result is computed at two working precisions, raised until both agree
to 100 bits, so that cancellation inside a formula cannot spoil a reference.
"""

import argparse
import math
import random
import struct
from pathlib import Path

from mpmath import mp, mpf

NAN = float("nan")
LARGEST = struct.unpack(">d", bytes.fromhex("7fefffffffffffff"))[0]
SMALLEST = 5e-324
NORMAL = 2.0**-1022


# ---------------------------------------------------------------- operands


def bits(x):
    """The bits of a float or of an integer operand, in hexadecimal."""
    if isinstance(x, int):
        return f"{x & (2**64 - 1):016x}"
    if math.isnan(x):
        return "7ff8000000000000"
    return struct.pack(">d", x).hex()


def step(x, n):
    """The double `n` places after `x`."""
    toward = math.inf if n > 0 else -math.inf
    for _ in range(abs(n)):
        x = math.nextafter(x, toward)
    return x


class Draw:
    """Random operands of the usual shapes."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def sign(self):
        return self.rng.choice((-1.0, 1.0))

    def wide(self):
        """Any finite magnitude, exponents equally likely, either sign."""
        return self.sign() * self.size(-1074, 1024)

    def size(self, low, high):
        """A magnitude between 2^low and 2^high, exponents equally likely."""
        mantissa = 1.0 + self.rng.getrandbits(52) / 2.0**52
        return math.ldexp(mantissa, self.rng.randrange(low, high))

    def near(self, low, high):
        """As `size`, with either sign."""
        return self.sign() * self.size(low, high)

    def uniform(self, low, high):
        return self.rng.uniform(low, high)

    def around(self, centre, low=-53, high=-1):
        """`centre` displaced by a relative 2^low to 2^high."""
        return centre * (1.0 + self.near(low, high))

    def edge(self, values, signs=True):
        """A few places from one of `values`."""
        x = step(self.rng.choice(values), self.rng.randint(-4, 4))
        return x * self.sign() if signs else x

    def subnormal(self):
        return self.sign() * math.ldexp(self.rng.getrandbits(self.rng.randint(1, 52)) | 1, -1074)


def mix(*sources):
    """A generator of operand tuples taking the sources in turn."""

    def generate(draw, count):
        for i in range(count):
            point = sources[i % len(sources)](draw)
            yield point if isinstance(point, tuple) else (point,)

    return generate


def wide(d):
    return d.wide()


def positive(d):
    return abs(d.wide())


def subnormal(d):
    return d.subnormal()


def near(low, high):
    return lambda d: d.near(low, high)


def size(low, high):
    return lambda d: d.size(low, high)


def uniform(low, high):
    return lambda d: d.uniform(low, high)


def around(centre, low=-53, high=-1):
    return lambda d: d.around(centre, low, high)


def edge(*values):
    return lambda d: d.edge(values)


def edge_up(*values):
    return lambda d: d.edge(values, signs=False)


def pair(first, second):
    return lambda d: (first(d), second(d))


def triple(first, second, third):
    return lambda d: (first(d), second(d), third(d))


def fixed(*values):
    return lambda d: d.rng.choice(values)


def multiple_of_pi(d):
    """The double nearest to a multiple of π/2 or π/4, or one beside it."""
    k = d.rng.randrange(1, 2 ** d.rng.choice((3, 10, 20, 40)))
    with mp.workprec(200):
        return d.sign() * step(float(k * mp.pi / 4), d.rng.randint(-1, 1))


# -------------------------------------------------------------- references


def real(x):
    """A complex result is no result."""
    return x if isinstance(x, mpf) else NAN


def exact_sqrt(x):
    return mp.sqrt(x) if x >= 0 else NAN


def log_of(function):
    def reference(x):
        if x < 0:
            return NAN
        return function(x) if x > 0 else -mp.inf

    return reference


def log_ratio(x, base):
    if x <= 0 or base <= 0 or base == 1:
        return NAN
    return mp.log(x) / mp.log(base)


def ln_1p(x):
    if x < -1:
        return NAN
    return mp.log1p(x) if x > -1 else -mp.inf


def arc(function):
    return lambda x: function(x) if abs(x) <= 1 else NAN


def atanh(x):
    if abs(x) > 1:
        return NAN
    return mp.atanh(x) if abs(x) < 1 else x * mp.inf


def signed_cbrt(x):
    return mp.cbrt(x) if x >= 0 else -mp.cbrt(-x)


def power(x, y):
    if x == 0 and y < 0:
        return NAN
    # Beyond this the result overflows or underflows, whatever the digits.
    if x != 0 and y * mp.log(abs(x)) > 1000:
        size = mp.ldexp(1, 2000)
    elif x != 0 and y * mp.log(abs(x)) < -1000:
        size = mp.ldexp(1, -2000)
    else:
        size = mp.power(abs(x), y)
    if x >= 0:
        return size
    if y != mp.floor(y):
        return NAN
    return size if mp.fmod(y, 2) == 0 else -size


def power_of_integer(x, n):
    return power(x, mpf(n))


def capped_exp(x):
    """The exponential, with a stand-in far outside the range of a double."""
    return mp.exp(max(min(x, mpf(2000)), mpf(-2000)))


def softplus(x):
    return x + mp.log1p(capped_exp(-x)) if x > 0 else mp.log1p(capped_exp(x))


def logaddexp(a, b):
    high, low = max(a, b), min(a, b)
    if high - low > 4000:
        # The far operand only breaks a tie, and a stand-in does that too.
        low = high - 4000
    return high + mp.log1p(mp.exp(low - high))


def exact_sign(x):
    return mpf((x > 0) - (x < 0))


def half_away(x):
    return exact_sign(x) * mp.floor(abs(x) + mpf(1) / 2)


def half_even(x):
    low = mp.floor(x)
    if x - low == mpf(1) / 2:
        return low if mp.fmod(low, 2) == 0 else low + 1
    return mp.floor(x + mpf(1) / 2)


def nan_if_any(function):
    return lambda *xs: NAN if any(map(mp.isnan, xs)) else function(*xs)


def clamp(x, lo, hi):
    return NAN if lo > hi else max(lo, min(x, hi))


def inside(x, lo, hi):
    return NAN if lo > hi else mpf(lo <= x <= hi)


def domain(p, v, s):
    return NAN if mp.isnan(v) and not mp.isnan(s) else p


def remainder(x, y):
    """The exact remainder with the sign of `x`."""
    if y == 0:
        return NAN
    return mpf(math.fmod(float(x), float(y)))


def product(a, b):
    return a * b


def quotient(a, b):
    return a / b if b != 0 else NAN


CAP = 20000


def scaled_power(x, y, k=0):
    """|x|^(y − k) with its sign, or a stand-in far outside the range of a double."""
    if x == 0:
        return mpf(1) if y == k else (mpf(0) if y > k else mp.inf)
    log = (y - k) * mp.log(abs(x))
    if abs(log) > CAP:
        result = mp.ldexp(1, CAP if log > 0 else -CAP)
    else:
        result = mp.exp(log) if y != mp.floor(y) or abs(y) > 100 else mp.power(abs(x), int(y) - k)
    if x > 0:
        return result
    if y != mp.floor(y):
        return NAN
    return result if mp.fmod(y - k, 2) == 0 else -result


def falling(y, k):
    """y·(y − 1)⋯ of k factors."""
    result = mpf(1)
    for i in range(k):
        result *= y - i
    return result


def power_derivative(x, y, m, n):
    """The derivative of x^y of order m by x and n by y, by Leibniz' rule."""
    m, n = int(m), int(n)
    if x < 0 and n > 0:
        return NAN
    # The coefficients of the falling factorial, and its derivatives at y.
    coefficients = [mpf(1)]
    for i in range(m):
        shifted = [mpf(0)] + coefficients
        coefficients = [a - i * b for a, b in zip(shifted, coefficients + [mpf(0)])]
    total = mpf(0)
    for j in range(n + 1):
        total += mp.binomial(n, j) * mp.polyval(coefficients[::-1], y) * (mp.log(x) ** (n - j) if n > j else 1)
        coefficients = [k * c for k, c in enumerate(coefficients)][1:] or [mpf(0)]
    return total * scaled_power(x, y, m) if total != 0 else mpf(0)


def gauss(x):
    return 2 / mp.sqrt(mp.pi) * mp.exp(-min(x * x, mpf(2000)))


def gamma_log(x):
    return mp.loggamma(x) if x > 0 else NAN


def psi(n):
    return lambda x: mp.psi(n, x) if x > 0 else NAN


def inverse_power(x, y, k):
    return 1 / mp.mpc(x, y) ** int(k)


# ------------------------------------------------------------------- table

TINY = (2.0**-28, 2.0**-27, 2.0**-26, 2.0**-54, 2.0**-53, 2.0**-1022)
EXP_EDGES = (0.34657359, 1.0397207, 0.5, 1.0, 708.39641853226408, 709.78271289338397,
             745.13321910194122, 709.0, 710.0) + TINY
PI_4 = math.pi / 4
TRIG = (wide, near(-30, 8), uniform(-10.0, 10.0), multiple_of_pi, near(0, 60),
        edge(PI_4, 3 * PI_4, 5 * PI_4, 7 * PI_4, 9 * PI_4, 2.0**20 * math.pi / 2, *TINY))
LOGS = (positive, around(1.0, -53, -1), around(1.0, -12, -3), size(-3, 4), subnormal,
        edge_up(1.0, 2.0**0.5, 0.5**0.5, NORMAL, LARGEST, 2.0, 0.5, 10.0, 8.0, 1000.0))
UNIT = (near(-60, 0), uniform(-1.0, 1.0), around(1.0, -53, -2), around(-1.0, -53, -2), subnormal,
        edge(0.5, 0.975, 0.25, 1.0, 2.0**-27, 2.0**-57, 2.0**-1022))
HYPER = (wide, near(-60, 10), uniform(-3.0, 3.0), near(-3, 3), uniform(-712.0, 712.0),
         edge(0.34657359, 1.0, 22.0, 0.2554128, 0.5493061, 20.0, 19.0, 709.78271289338397,
              710.47586007394394, *EXP_EDGES), subnormal)
ERF = (near(-60, 3), uniform(-6.5, 6.5), uniform(0.0, 28.0), uniform(0.5, 3.0),
       edge(0.84375, 1.25, 1 / 0.35, 6.0, 28.0, 0.25, 26.5432, 27.2, 2.0**-56, 2.0**-28), subnormal)
SIGMOID = (wide, near(-60, 10), uniform(-40.0, 40.0), uniform(-3.0, 3.0), uniform(-750.0, 720.0),
           edge(36.7368005696771, 37.42994775023705, *EXP_EDGES), uniform(-750.0, -700.0))
ROUND = (wide, near(-3, 54), uniform(-4.0, 4.0), subnormal,
         edge(0.5, 1.5, 2.5, 3.5, 1.0, 2.0**51, 2.0**52, 2.0**53, 2.0**52 - 0.5, 2.0**51 + 0.5))


def both_ways(first, second):
    return lambda d: (first(d), second(d)) if d.rng.random() < 0.5 else (second(d), first(d))


def log_zero(low, high):
    """A pair whose exponentials add up to nearly one."""

    def draw(d):
        with mp.workprec(200):
            high_part = -d.size(low, high)
            if high_part < -math.log(2.0):
                high_part = -math.log(2.0) * d.uniform(0.1, 1.0)
            exact = float(mp.log(-mp.expm1(mpf(high_part))))
        low_part = step(exact, d.rng.choice((-3, -1, 0, 0, 0, 1, 2, 5)))
        if d.rng.random() < 0.4:
            low_part = d.around(exact, -52, -1)
        return (high_part, low_part) if d.rng.random() < 0.5 else (low_part, high_part)

    return draw


def close(low, high):
    """A pair, the second a relative 2^low to 2^high from the first."""

    def draw(d):
        a = d.near(-4, 12)
        return a, d.around(a, low, high)

    return draw


def power_at_edge(d):
    """A pair whose power lies near the ends of the range."""
    target = d.rng.choice((709.78, -708.39, -745.1, -740.0, 700.0)) + d.uniform(-3.0, 1.0)
    y = d.near(-3, 9)
    x = math.exp(max(min(target / y, 700.0), -700.0))
    return x, y


def power_near_one(d):
    """A base near one with an exponent that takes it across the range."""
    x = d.sign() * (1.0 + d.near(d.rng.choice((-52, -25)), -21))
    y = d.uniform(-745.0, 709.0) / math.log(abs(x))
    return x, float(math.floor(y)) if x < 0.0 else y


def small_power(d):
    return d.near(-350, 350), d.rng.choice((-3, -2, -1, 0, 1, 2, 3, 3, -3))


def small_power_at_edge(d):
    n = d.rng.choice((-3, -2, 2, 3))
    e = d.rng.choice((-1074, -1060, -1022, 1023, 1024))
    return d.near(-1, 1) * 2.0 ** (e / n), n


def integer_power(d):
    n = d.rng.choice((-1, 1)) * d.rng.randrange(1, 2 ** d.rng.choice((3, 5, 8, 10)))
    reach = 720.0 / abs(n)
    return d.sign() * math.exp(max(min(d.uniform(-reach, reach), 709.0), -709.0)), n


def integer_power_at_edge(d):
    n = d.rng.choice((-1, 1)) * d.rng.randrange(4, 2 ** d.rng.choice((3, 5, 8)))
    target = d.rng.choice((709.78, -708.39, -740.0)) + d.uniform(-4.0, 3.0)
    return d.sign() * math.exp(target / n), n


ANY_PAIR = (pair(wide, wide), pair(near(-4, 4), near(-4, 4)), pair(uniform(-2, 2), near(-60, 60)))
TIES = (lambda d: (lambda a: (a, a))(d.wide()), lambda d: (lambda a: (a, step(a, d.rng.choice((-1, 1)))))(d.near(-300, 300)))
COMPARE = ANY_PAIR + TIES + (pair(fixed(0.0, NAN, 1.0), fixed(0.0, 1.0, NAN)),)
BOUNDS = (
    triple(near(-2, 2), near(-2, 2), near(-2, 2)),
    triple(wide, wide, wide),
    triple(uniform(-2.0, 2.0), uniform(-1.5, 0.0), uniform(0.0, 1.5)),
    triple(fixed(-1.0, 0.0, 2.0, 3.0, NAN), fixed(-1.0, 0.0), fixed(2.0, 3.0, 2.0, NAN)),
)

GAMMA = (size(-60, 1024), size(-4, 5), uniform(0.0, 4.0), uniform(1.0, 30.0), around(1.4616321449683623, -53, -1),
         around(1.0, -53, -1), around(2.0, -53, -1), lambda d: d.size(-1074, -1000), size(-1, 12),
         edge_up(1.0, 2.0, 3.0, 8.0, 10.0, 12.0, 0.5, 1.4616321449683623, 1.2, 1.7, 2.0**-1022, 2.0**58))
LN_ZERO = (lambda d: (d.wide(), d.around(1.0, -53, -1)), lambda d: (d.near(-20, 20), d.size(-20, 20)),
           lambda d: (d.wide(), abs(d.wide())), lambda d: (d.near(-500, 500), d.size(-500, 500)))
POW_DRAWS = (
    lambda d: (d.size(-4, 5), d.near(-4, 8)), power_at_edge, lambda d: tuple(map(abs, power_near_one(d))),
    lambda d: (d.around(1.0, -53, -1), d.near(-4, 50)), lambda d: (abs(d.wide()), d.near(-12, 2)),
    lambda d: (d.near(-40, 40), float(d.rng.randrange(-30, 30))), lambda d: (abs(d.subnormal()), d.uniform(-2.0, 2.0)),
    lambda d: (abs(d.wide()), d.near(-60, 1)),
)
ORDERS_OF_POWER = ((1.0, 0.0), (2.0, 0.0), (1.0, 1.0), (0.0, 2.0), (3.0, 0.0), (2.0, 1.0), (0.0, 1.0), (0.0, 0.0))
POINTS_OF_PLANE = (
    pair(wide, wide), pair(near(-4, 4), near(-4, 4)), close(-53, -1), pair(near(-64, 64), near(-4, 4)),
    pair(near(-1074, -1000), near(-1074, -1000)), pair(near(900, 1024), near(900, 1024)), pair(near(-1074, -1020), near(-60, 10)))


def with_constants(draws, *constants):
    """Operands from the draws, followed by one of the tuples of constants."""
    return [lambda d, draw=draw: tuple(draw(d)) + d.rng.choice(constants) for draw in draws]


# Name: reference and operands.
FUNCTIONS = {
    "sqrt": (exact_sqrt, mix(positive, size(-4, 4), subnormal, edge_up(1.0, 4.0, NORMAL, LARGEST))),
    "cbrt": (signed_cbrt, mix(wide, near(-4, 4), subnormal, edge(1.0, 8.0, 27.0, NORMAL, LARGEST))),
    "hypot": (mp.hypot, mix(
        pair(wide, wide), pair(near(-4, 4), near(-4, 4)), pair(near(-30, 30), near(-30, 30)),
        pair(near(-1074, -1000), near(-1074, -1000)), pair(near(1010, 1024), near(1000, 1024)),
        lambda d: (lambda a: (a, a * d.near(-30, -22)))(d.near(-500, 500)),
        pair(near(505, 515), near(505, 515)), pair(near(-515, -505), near(-515, -505)))),
    "exp": (capped_exp, mix(wide, near(-60, 10), uniform(-750.0, 715.0), uniform(-2.0, 2.0), edge(*EXP_EDGES),
                            uniform(-746.0, -700.0))),
    "exp2": (lambda x: mp.power(2, max(min(x, 2000), -2000)), mix(
        wide, near(-60, 10), uniform(-1080.0, 1030.0), uniform(-2.0, 2.0), uniform(-1076.0, -1020.0),
        edge(0.5, 1.0, 1022.0, 1023.0, 1024.0, 1074.0, 1075.0, 1.0 / 256, 1.0 / 512, *TINY))),
    "exp_m1": (lambda x: mp.expm1(min(x, mpf(2000))) if x > -2000 else mpf(-1) + mp.ldexp(1, -2000), mix(
        wide, near(-60, 10), uniform(-750.0, 715.0), uniform(-2.0, 2.0), edge(*EXP_EDGES, 0.25, 38.8162, 56 * math.log(2)),
        subnormal, uniform(-0.5, 0.5))),
    "ln": (log_of(mp.log), mix(*LOGS)),
    "log2": (log_of(lambda x: mp.log(x) / mp.ln2), mix(*LOGS)),
    "log10": (log_of(lambda x: mp.log(x) / mp.ln10), mix(*LOGS)),
    "log": (log_ratio, mix(pair(positive, positive), pair(size(-4, 5), size(-4, 5)), pair(positive, fixed(2.0, 10.0, 3.0, 0.5)),
                           pair(around(1.0, -53, -1), size(-4, 5)), pair(size(-4, 10), around(1.0, -53, -1)),
                           pair(fixed(8.0, 1000.0, 9.0, 1e-5, 0.125), fixed(2.0, 10.0, 3.0)))),
    "ln_1p": (ln_1p, mix(positive, near(-60, 0), around(-1.0, -53, -1), uniform(-0.5, 3.0), subnormal,
                         edge(0.41421356, 0.29289322, 1.0, 2.0**-53, 2.0**-29, 2.0**53, 2.0**54, LARGEST))),
    "sin": (mp.sin, mix(*TRIG)),
    "cos": (mp.cos, mix(*TRIG)),
    "sin_cos": (mp.sin, mix(*TRIG)),
    "tan": (mp.tan, mix(*TRIG, edge(0.6744, 0.67434))),
    "asin": (arc(mp.asin), mix(*UNIT)),
    "acos": (arc(mp.acos), mix(*UNIT)),
    "atan": (mp.atan, mix(wide, near(-30, 30), uniform(-3.0, 3.0), subnormal,
                          edge(7 / 16, 11 / 16, 19 / 16, 39 / 16, 2.0**66, 2.0**-27, 1.0))),
    "atan2": (mp.atan2, mix(*ANY_PAIR, pair(near(-4, 4), near(-4, 4)), close(-53, -1),
                            pair(near(-1074, -1000), near(-1074, -1000)), pair(near(900, 1024), near(900, 1024)),
                            pair(near(-64, 64), near(-4, 4)), pair(near(-1074, -1020), near(-60, 10)))),
    "sinh": (lambda x: mp.sinh(max(min(x, 2000), -2000)), mix(*HYPER)),
    "cosh": (lambda x: mp.cosh(max(min(x, 2000), -2000)), mix(*HYPER)),
    "tanh": (lambda x: mp.tanh(max(min(x, 2000), -2000)), mix(*HYPER)),
    "asinh": (mp.asinh, mix(wide, near(-60, 10), uniform(-3.0, 3.0), near(-4, 3), subnormal,
                            edge(2.0**26, 2.0, 2.0**-26, 2.0**28, LARGEST, 1.0))),
    "acosh": (lambda x: mp.acosh(x) if x >= 1 else NAN, mix(
        lambda d: 1.0 + d.size(-52, 4), size(0, 1024), uniform(1.0, 3.0), edge_up(1.0, 2.0, 2.0**26, 2.0**28, LARGEST))),
    "atanh": (atanh, mix(near(-60, 0), uniform(-1.0, 1.0), around(1.0, -53, -2), around(-1.0, -53, -2), subnormal,
                         edge(0.5, 2.0**-32, 2.0**-28, 1.0, 2.0**-1022))),
    "pow": (power, mix(pair(positive, near(-10, 4)), pair(size(-4, 5), near(-4, 8)), power_at_edge, power_at_edge, power_near_one,
                       pair(around(1.0, -53, -1), near(-4, 50)), pair(near(-40, 40), lambda d: float(d.rng.randrange(-30, 30))),
                       pair(positive, fixed(0.5, 1.5, 2.0, -1.0, -0.5, 3.0, 1 / 3)), pair(subnormal, uniform(-2.0, 2.0)))),
    "powi": (power_of_integer, mix(small_power, small_power_at_edge, integer_power, integer_power_at_edge,
                                   lambda d: (d.near(-2, 2), d.rng.choice((2, 3, -2, -3))))),
    "erf": (mp.erf, mix(*ERF)),
    "erfc": (mp.erfc, mix(*ERF)),
    "logistic": (lambda x: 1 / (1 + capped_exp(-x)), mix(*SIGMOID)),
    "softplus": (softplus, mix(*SIGMOID)),
    "logaddexp": (logaddexp, mix(pair(wide, wide), pair(near(-4, 6), near(-4, 6)), close(-53, -1),
                                 pair(uniform(-800, 720), uniform(-800, 720)),
                                 log_zero(-8, 1), log_zero(-60, -1), log_zero(-1070, -1),
                                 pair(near(-60, 1), uniform(-60, 1)), pair(uniform(-3.0, 0.0), uniform(-3.0, 0.0)),
                                 pair(near(-1000, -100), uniform(-740, -60)), both_ways(near(-20, 0), uniform(-20.0, 0.0)))),
    "xlogx": (lambda x: NAN if x < 0 else (x * mp.log(x) if x > 0 else mpf(0)), mix(*LOGS, size(-1074, -1000))),
    "mul_add": (lambda a, b, c: a * b + c, mix(
        triple(wide, wide, wide), triple(near(-4, 4), near(-4, 4), near(-4, 4)),
        lambda d: (lambda a, b: (a, b, -d.around(a * b)))(d.near(-100, 100), d.near(-100, 100)),
        lambda d: (lambda a, b: (a, b, -(a * b)))(d.near(-400, 400), d.near(-400, 400)),
        triple(near(-550, -500), near(-550, -500), near(-1074, -1000)))),
    "rem": (remainder, mix(*ANY_PAIR, pair(near(-4, 60), near(-4, 4)))),
    "relu": (nan_if_any(lambda x: max(x, mpf(0))), mix(wide, near(-4, 4), subnormal, fixed(0.0, NAN))),
    "sign": (nan_if_any(exact_sign), mix(wide, near(-4, 4), subnormal, fixed(0.0, NAN))),
    "signum": (nan_if_any(exact_sign), mix(wide, near(-4, 4), fixed(NAN, 1.0))),
    "copysign": (lambda x, y: abs(x) * exact_sign(y), mix(*ANY_PAIR)),
    "floor": (mp.floor, mix(*ROUND)),
    "ceil": (mp.ceil, mix(*ROUND)),
    "round": (half_away, mix(*ROUND)),
    "trunc": (lambda x: exact_sign(x) * mp.floor(abs(x)), mix(*ROUND)),
    "round_ties_even": (half_even, mix(*ROUND)),
    "max": (nan_if_any(max), mix(*COMPARE)),
    "min": (nan_if_any(min), mix(*COMPARE)),
    "clamp": (nan_if_any(clamp), mix(*BOUNDS)),
    "sech2": (lambda x: 1 / mp.cosh(max(min(x, 2000), -2000)) ** 2, mix(
        near(-60, 10), uniform(-3.0, 3.0), uniform(-25.0, 25.0), uniform(-375.0, 375.0), uniform(350.0, 373.5),
        edge(18.7, 19.0, 19.06, 20.0, 354.2, 372.6, 373.2, 372.9, 355.0, *TINY))),
    "gauss": (lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-min(x * x, mpf(2000))), mix(
        near(-60, 5), uniform(-3.0, 3.0), uniform(-27.3, 27.3), uniform(26.0, 27.4), wide,
        edge(26.5, 26.6, 27.2, 27.226, 1.0, 0.5))),
    "one_plus_ln": (log_of(lambda x: 1 + mp.log(x)), mix(
        positive, around(math.exp(-1), -53, -1), around(math.exp(-1), -12, -1), size(-4, 4), subnormal,
        edge_up(math.exp(-1), 0.5 * math.exp(-1), 2 * math.exp(-1), 0.25, 0.5, 0.18393972, 0.735758882, 1.0, NORMAL, LARGEST))),
    "lorentz": (lambda x: 1 / (1 + x * x), mix(
        wide, near(-30, 30), uniform(-3.0, 3.0), near(505, 540), edge(1.0, 2.0**26, 2.0**27, 2.0**511, 2.0**512, LARGEST))),
    "logistic_difference": (lambda a, b: 1 / (1 + capped_exp(b - a)), mix(
        pair(wide, wide), pair(near(-4, 6), near(-4, 6)), close(-53, -1), pair(uniform(-400, 400), uniform(-400, 400)),
        pair(uniform(-3.0, 3.0), uniform(-3.0, 3.0)), lambda d: (lambda b: (b - d.uniform(600.0, 746.0), b))(d.near(0, 12)),
        pair(near(-60, 0), uniform(-760.0, 720.0)))),
    "xlogy": (lambda x, y: x * mp.log(y) if y > 0 else NAN, mix(*LN_ZERO)),
    "lgamma": (gamma_log, mix(*GAMMA)),
    "digamma": (psi(0), mix(*GAMMA)),
    "trigamma": (psi(1), mix(*GAMMA)),
    "polygamma": (lambda x, n: mp.psi(int(n), x), mix(
        *with_constants([lambda d: (d.size(-8, 12),), lambda d: (d.uniform(0.5, 40.0),)], (0.0,), (1.0,), (2.0,), (3.0,), (5.0,), (9.0,)))),
    "cbrt_slope": (lambda x: 1 / (3 * mp.cbrt(x * x)), mix(wide, near(-4, 4), subnormal, edge(1.0, 8.0, 27.0, NORMAL, LARGEST))),
    "direction": (lambda x, y: x / mp.hypot(x, y), mix(*POINTS_OF_PLANE)),
    "direction_slope": (lambda x, y: y * y / mp.hypot(x, y) ** 3, mix(*POINTS_OF_PLANE)),
    "direction_turn": (lambda x, y: -x * y / mp.hypot(x, y) ** 3, mix(*POINTS_OF_PLANE)),
    "inversion": (lambda x, y: x / (x * x + y * y), mix(*POINTS_OF_PLANE)),
    "inverse_power_re": (lambda x, y, k: mp.re(inverse_power(x, y, k)), mix(*with_constants(POINTS_OF_PLANE, (1.0,), (2.0,)))),
    "inverse_power_im": (lambda x, y, k: mp.im(inverse_power(x, y, k)), mix(*with_constants(POINTS_OF_PLANE, (1.0,), (2.0,)))),
    "power_slope": (lambda x, y: power_derivative(x, y, 1, 0), mix(*POW_DRAWS)),
    "power_times_ln": (lambda x, y: power_derivative(x, y, 0, 1), mix(*POW_DRAWS)),
    "power_derivative": (power_derivative, mix(*with_constants(POW_DRAWS, *ORDERS_OF_POWER))),
    "exp2_scaled": (lambda x, c: c * mp.power(2, max(min(x, 4000), -4000)), mix(
        pair(uniform(-1080.0, 1030.0), fixed(math.log(2.0), 1.0, 0.1)), pair(uniform(1020.0, 1030.0), near(-10, 1)), pair(near(-60, 9), near(-4, 4)))),
    "log_slope": (lambda x, b: -mp.log(x) / (b * mp.log(b) ** 2) if x > 0 and b > 0 and b != 1 else NAN, mix(
        pair(positive, positive), pair(size(-4, 5), size(-4, 5)), pair(around(1.0, -53, -1), size(-4, 5)),
        pair(size(-4, 10), around(1.0, -53, -1)))),
    "gauss_slope": (lambda x: -2 * x * gauss(x), mix(
        near(-60, 5), uniform(-3.0, 3.0), uniform(-27.3, 27.3), uniform(26.0, 27.4), subnormal, edge(26.5, 26.6, 27.2, 27.226, 1.0, 0.5))),
    "exceeds": (nan_if_any(lambda a, b: mpf(a > b)), mix(*COMPARE)),
    "inside": (nan_if_any(inside), mix(*BOUNDS)),
    "heaviside_difference": (nan_if_any(lambda a, b: (1 + exact_sign(a - b)) / 2), mix(*COMPARE)),
    "chain_mul": (product, mix(*ANY_PAIR, pair(near(-530, -500), near(-560, -500)))),
    "chain_div": (quotient, mix(*ANY_PAIR, pair(near(-1074, -1000), near(-4, 60)))),
    "domain": (domain, mix(triple(wide, wide, wide), triple(wide, fixed(NAN), wide), triple(wide, fixed(NAN), fixed(NAN)))),
}

# Functions that round once or not at all: fewer points tell as much.
FEW = {"relu", "sign", "signum", "copysign", "max", "min", "exceeds", "inside", "heaviside_difference",
       "domain", "rem", "floor", "ceil", "trunc", "clamp", "chain_mul", "chain_div", "sin_cos"}
# Functions with more branches than the others.
MANY = {"logaddexp", "pow", "powi", "atan2", "power_derivative", "digamma"}


# ------------------------------------------------------------------ output


def evaluate(function, operands):
    """The reference, from two precisions that agree."""
    last = None
    for precision in (160, 320, 700, 1400, 2900, 6000):
        with mp.workprec(precision):
            exact = [mpf(x) if isinstance(x, float) else x for x in operands]
            value = function(*exact)
            value = real(value) if not isinstance(value, (int, float)) else mpf(value)
            if mp.isnan(value) or mp.isinf(value):
                return value
            if last is not None and abs(value - last) <= mp.ldexp(abs(value), -100):
                return value
            last = value
    raise ArithmeticError(f"no agreement at {operands}")


def split(value):
    """The nearest double and the rest in its units of the last place."""
    if mp.isnan(value):
        return "nan", "0"
    if mp.isinf(value):
        return bits(math.inf if value > 0 else -math.inf), "0"
    negative, mantissa, exponent, count = value._mpf_
    mantissa = int(mantissa)
    if mantissa == 0:
        return bits(0.0), "0"
    top = exponent + count
    if top > 1025:
        return bits(-math.inf if negative else math.inf), "0"
    if top < -1200:
        return bits(-0.0 if negative else 0.0), "0"
    unit = max(top - 53, -1074)
    shift = exponent - unit
    if shift >= 0:
        whole, rest = mantissa << shift, 0.0
    else:
        whole = mantissa >> -shift
        part = mantissa - (whole << -shift)
        half = 1 << (-shift - 1)
        if part > half or (part == half and whole & 1):
            whole += 1
            part -= 1 << -shift
        rest = float(mpf(part) / (1 << -shift))
    if whole == 1 << 53:
        whole >>= 1
        unit += 1
        rest /= 2.0
    if unit > 971:
        nearest = math.inf
        rest *= 2.0
        # Where the whole part is beyond the first step above the range.
        if whole != 1 << 52:
            rest = 0.0
    else:
        nearest = math.ldexp(whole, unit)
    sign = -1.0 if negative else 1.0
    text = f"{sign * rest:.6f}".rstrip("0").rstrip(".")
    return bits(sign * nearest), "0" if text in ("", "-0") else text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200, help="points of a usual function")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="functions, separated by commas")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("functions.csv"))
    arguments = parser.parse_args()
    names = [n for n in arguments.only.split(",") if n] or list(FUNCTIONS)
    with arguments.output.open("w", newline="\n") as out:
        out.write("function,operands,value,rest\n")
        for name in names:
            reference, generate = FUNCTIONS[name]
            count = arguments.points
            count = count * 3 // 4 if name in FEW else count * 3 // 2 if name in MANY else count
            for operands in generate(Draw(f"{arguments.seed} {name}"), count):
                value, rest = split(evaluate(reference, operands))
                words = " ".join(map(bits, operands))
                out.write(f"{name},{words},{value},{rest}\n")


if __name__ == "__main__":
    main()
