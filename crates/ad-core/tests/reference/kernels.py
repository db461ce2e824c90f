#!/usr/bin/env python3
"""Prints the constants of src/math/kernels.rs, as they stand there.

Needs mpmath (`pip install mpmath`; gmpy2 makes it faster):

    python3 kernels.py

Polynomials are fitted by least squares at Chebyshev nodes with 400 bits, which
comes within a small factor of the smallest possible largest error. Their
coefficients are rounded to f64 one after the other, from the constant term
upwards, and the others are fitted again after each, so that they make up for
the rounding. Beside each polynomial stands the largest error that is left, for
coefficients as rounded and without the rounding of its evaluation.

It also prints how near to a multiple of pi/2 an f64 within the reach of the
short reduction comes.
"""

import math

from mpmath import mp, mpf

mp.prec = 400


def literal(x):
    """A double in as few digits as read back to it, as rustfmt leaves them."""
    text = repr(x)
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text


def truncated(x, count):
    """The number of `count` bits nearest to `x`."""
    _, exponent = mp.frexp(x)
    step = mp.ldexp(1, int(exponent) - count)
    return mp.nint(x / step) * step


# ------------------------------------------------------------- polynomials


def least_squares(target, weight, low, high, degrees):
    """The coefficients for the powers `degrees` that fit `weight · target`."""
    count = 160
    points = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mpf(1) / 2) / count) for i in range(count)]
    size = len(degrees)
    matrix = mp.matrix(size, size)
    right = mp.matrix(size, 1)
    for x in points:
        powers = [weight(x) * x**degree for degree in degrees]
        wanted = weight(x) * target(x)
        for row in range(size):
            right[row] += powers[row] * wanted
            for column in range(size):
                matrix[row, column] += powers[row] * powers[column]
    return list(mp.lu_solve(matrix, right))


def fit(target, weight, low, high, degree, fixed=()):
    """Coefficients as doubles; the first of them may be given."""
    rounded = list(fixed)
    low, high = mpf(low), mpf(high)
    for first in range(len(rounded), degree + 1):
        def rest(x):
            return target(x) - sum(mpf(c) * x**i for i, c in enumerate(rounded))

        found = least_squares(rest, weight, low, high, list(range(first, degree + 1)))
        rounded.append(float(found[0]))
    points = [low + (high - low) * i / 1999 for i in range(2000)]
    error = max(
        abs(weight(x) * (target(x) - sum(mpf(c) * x**i for i, c in enumerate(rounded))))
        for x in points
        if weight(x) != 0
    )
    return rounded, error


def show(name, doc, values, error=None):
    print(f"/// {doc}")
    if error is not None:
        print(f"/// (largest error 2^{float(mp.log(error, 2)):.1f})")
    print(f"const {name}: [f64; {len(values)}] = [")
    for value in values:
        print(f"    {literal(value)},")
    print("];")


def number(name, doc, value):
    print(f"/// {doc}")
    print(f"const {name}: f64 = {literal(float(value))};")


# --------------------------------------------------- reduction of an angle


def nearest_to_multiples(limit):
    """The least distance of an f64 from 1/2 to `limit` to a multiple of pi/2.

    In each binade the numbers are `m 2^e` with an integer `m` of 53 bits, and
    one of them is near `k pi/2` where `m/k` is near `pi/2 / 2^e`. The best such
    fractions are the convergents of the continued fraction, their multiples
    and what lies between two of them.
    """
    best = (mpf(1), None)
    for exponent in range(-53, math.frexp(limit)[1] - 52):
        ratio = mp.pi / 2 / mp.ldexp(1, exponent)
        (p0, q0), (p1, q1) = (0, 1), (1, 0)
        rest = ratio
        while p1 < 2**53:
            whole = int(mp.floor(rest))
            parts = {1, whole // 2, whole // 2 + 1, whole - 1, whole}
            for p, q in ((p0 + part * p1, q0 + part * q1) for part in parts if 0 < part <= whole):
                factor = -(-(2**52) // p)
                if q > 0 and p * factor < 2**53:
                    distance = abs(mp.ldexp(mpf(p), exponent) - q * mp.pi / 2) * factor
                    best = min(best, (distance, math.ldexp(p * factor, exponent)))
            (p0, q0), (p1, q1) = (p1, q1), (p0 + whole * p1, q0 + whole * q1)
            rest = 1 / (rest - whole)
    return best


def main():
    ln_2 = mp.log(2)
    high = truncated(ln_2, 42)
    number("LN_2_HIGH", "ln 2 to 42 bits, so that its product with an exponent is exact.", high)
    number("LN_2_LOW", "The rest of ln 2.", ln_2 - high)

    half = ln_2 / 2 * (1 + mpf(2) ** -20)
    # The kernel adds the term 1/2 r² itself.
    values, error = fit(
        lambda r: (mp.expm1(r) - r) / r**2 if abs(r) > mpf(2) ** -60 else mpf(1) / 2 + r / 6,
        lambda r: r, -half, half, 10, (0.5,))
    show("EXP", "`(eʳ − 1 − r − r²/2)/r³` for `|r| ≤ ln 2 / 2`.", values[1:], error)

    top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * (1 + mpf(2) ** -20)
    show("LN", "`(ln((1 + s)/(1 − s)) − 2s)/s³` in `s²`, for `(1 + s)/(1 − s)` between √½ and √2.", *fit(
        lambda z: sum(2 * z**i / (2 * i + 3) for i in range(50)), lambda z: z, 0, top, 6))

    top = (mp.pi / 4) ** 2 * (1 + mpf(2) ** -12)
    show("SIN", "`(sin r − r)/r³` in `r²`, for `|r| ≤ π/4`.", *fit(
        lambda z: sum((-1) ** (i + 1) * z**i / mp.factorial(2 * i + 3) for i in range(25)), lambda z: z, 0, top, 5))
    show("COS", "`(cos r − 1 + r²/2)/r⁴` in `r²`, for `|r| ≤ π/4`.", *fit(
        lambda z: sum((-1) ** i * z**i / mp.factorial(2 * i + 4) for i in range(25)), lambda z: z**2, 0, top, 5))

    bits = 39
    first = truncated(mp.pi / 2, bits)
    second = truncated(mp.pi / 2 - first, bits)
    number("FRAC_PI_2_HIGH", f"π/2 to {bits} bits.", first)
    number("FRAC_PI_2_MIDDLE", f"{bits} further bits.", second)
    number("FRAC_PI_2_LOW", "The rest.", mp.pi / 2 - first - second)
    limit = math.floor(2 ** (53 - bits) * math.pi / 2)
    distance, where = nearest_to_multiples(limit)
    print(f"// The f64 below {limit} nearest to a multiple of pi/2 is {where!r}, 2^{float(mp.log(distance, 2)):.1f} away.")


if __name__ == "__main__":
    main()
