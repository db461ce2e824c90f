#!/usr/bin/env python3
"""Mutation testing of the table of operations, crates/ad-core/src/ops.rs.

    tools/mutate_rules.py                 all mutants
    tools/mutate_rules.py --only Div,Tan  those of some entries
    tools/mutate_rules.py --list          says what would be tried

The table states every derivative inside a macro, where cargo-mutants does not
look. This script changes its values and partials one at a time: operators,
constants, functions, operands, signs, relations, one partial for another. It
works on a copy of the workspace, in which each expression asks at run time
whether one of its mutants is wanted (the environment variable MUTANT), so that
one build serves all of them.

A mutant is killed if a test fails. The tests asked are those that know the
right numbers from elsewhere (exact results, difference quotients, values at
edges that are written down) and those that compare number types. Those that
compare with what the table once gave or printed (golden.rs,
reference_page.rs, snapshots) are left out: they notice any change, so they
would prove nothing.

What is missed stands at the end, and the exit status is 1, unless EQUIVALENT
below says why no test can tell it from the original.

Python's standard library and cargo are all it takes.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = "crates/ad-core/src/ops.rs"
# In the order in which they are asked: the quick ones that kill most come first.
TESTS = ["edges", "accuracy", "operations"]

# Functions that one could mistake for each other.
RELATIVES = [
    "sin cos", "sinh cosh", "tanh sech2", "exp exp_m1", "ln log2 log10 ln_1p", "sqrt cbrt", "recip sqrt",
    "inversion direction", "inverse_power_re inverse_power_im", "direction_slope direction_turn",
    "gauss gauss_slope", "digamma trigamma", "logistic logistic_slope softplus tanh", "erf erfc",
    "exceeds heaviside_difference", "sign signum", "round trunc", "floor ceil", "round round_ties_even",
    "power_slope power_times_ln", "asin acos", "sin tan", "min max", "asinh acosh", "atan atanh",
    "select_lt select_le select_gt", "select_ge select_le select_gt", "select_eq select_ne",
]
# Functions that do not look at the order of their first two operands.
SYMMETRIC = ["hypot", "logaddexp", "min", "max", "mul_add", "chain_mul", "direction_turn"]
OPERATORS = "+-*/"
RELATIONS = ["<", "<=", ">", ">=", "==", "!="]

# Mutants that compute the same for every operand, each with the reason.
# The key is "entry place: mutant", as the script prints it.
EQUIVALENT = {
    "Rem ∂0/∂1: (-((x - v) / y).round_ties_even())": "the quotient is whole up to rounding, never a half",
    "Asinh ∂0/∂0: T::lit(-1.0).hypot(x).recip()": "hypot does not look at signs",
    "Relu ∂0/∂0: v.exceeds(0.0)": "the positive part is above 0 where x is",
    "Copysign ∂0/∂0: (x.sign() / y.signum())": "by ±1 a quotient is the product",
    "Copysign ∂0/∂0: (x.sign() * v.signum())": "the result has the sign of y",
    "Clamp ∂0/∂0: x.inside(v, hi)": "x is not below the result just where it is not below lo",
    "Clamp ∂0/∂0: x.inside(lo, v)": "x is not above the result just where it is not above hi",
    "Clamp ∂0/∂1: v.exceeds(x)": "the result is above x just where lo is",
    "Clamp ∂0/∂2: x.exceeds(v)": "the result is below x just where hi is",
    "InversePowerRe ∂0/∂0: (-(k.round_ties_even() * x.inverse_power_re(y, (k + 1.0))))": "k is whole, or all is NaN",
    "InversePowerRe ∂0/∂0: (-(k.trunc() * x.inverse_power_re(y, (k + 1.0))))": "k is whole, or all is NaN",
    "InversePowerRe ∂0/∂1: (k.round_ties_even() * x.inverse_power_im(y, (k + 1.0)))": "k is whole, or all is NaN",
    "InversePowerRe ∂0/∂1: (k.trunc() * x.inverse_power_im(y, (k + 1.0)))": "k is whole, or all is NaN",
    "InversePowerIm ∂0/∂0: (-(k.round_ties_even() * x.inverse_power_im(y, (k + 1.0))))": "k is whole, or all is NaN",
    "InversePowerIm ∂0/∂0: (-(k.trunc() * x.inverse_power_im(y, (k + 1.0))))": "k is whole, or all is NaN",
    "InversePowerIm ∂0/∂1: (-(k.round_ties_even() * x.inverse_power_re(y, (k + 1.0))))": "k is whole, or all is NaN",
    "InversePowerIm ∂0/∂1: (-(k.trunc() * x.inverse_power_re(y, (k + 1.0))))": "k is whole, or all is NaN",
}


# Expressions: as much of Rust as the table uses.

TOKEN = re.compile(r"\s*(\d+\.\d*(?:e-?\d+)?|\d+|[A-Za-z_]\w*|::|[<>=!]=|[-+*/<>=(){},.;])")


class Parser:
    """A node is a tuple that starts with its kind."""

    def __init__(self, text):
        self.tokens = []
        text = re.sub(r"//.*", "", text).strip()
        at = 0
        while at < len(text):
            match = TOKEN.match(text, at)
            if not match:
                raise SyntaxError(f"cannot read {text[at:]!r}")
            self.tokens.append(match.group(1))
            at = match.end()
        self.at = 0

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, expected=None):
        token = self.peek()
        if token is None or (expected is not None and token != expected):
            raise SyntaxError(f"expected {expected}, found {token} in {self.tokens}")
        self.at += 1
        return token

    def whole(self):
        node = self.expression()
        if self.peek() is not None:
            raise SyntaxError(f"left over: {self.tokens[self.at:]}")
        return node

    def expression(self):
        if self.peek() == "if":
            self.take()
            condition = self.comparison()
            self.take("{")
            yes = self.expression()
            self.take("}")
            self.take("else")
            self.take("{")
            no = self.expression()
            self.take("}")
            return ("if", condition, yes, no)
        return self.comparison()

    def comparison(self):
        left = self.left_to_right("+-", lambda: self.left_to_right("*/", self.unary))
        if self.peek() in RELATIONS:
            return ("compare", self.take(), left, self.left_to_right("+-", self.unary))
        return left

    def left_to_right(self, operators, operand):
        left = operand()
        while self.peek() is not None and self.peek() in operators:
            left = ("binary", self.take(), left, operand())
        return left

    def unary(self):
        if self.peek() == "-":
            self.take()
            return ("minus", self.unary())
        node = self.primary()
        while self.peek() == ".":
            self.take()
            name = self.take()
            node = ("method", node, name, self.arguments())
        if self.peek() == "as":
            self.take()
            node = ("cast", node, self.take())
        return node

    def arguments(self):
        self.take("(")
        found = []
        while self.peek() != ")":
            found.append(self.expression())
            if self.peek() == ",":
                self.take()
        self.take(")")
        return tuple(found)

    def primary(self):
        token = self.take()
        if token == "(":
            node = self.expression()
            self.take(")")
            return node
        if token == "{":
            for expected in ["let", "_", "="]:
                self.take(expected)
            unused = self.take()
            self.take(";")
            node = self.expression()
            self.take("}")
            return ("unused", unused, node)
        if token[0].isdigit():
            return ("number", token)
        path = token
        while self.peek() == "::":
            self.take()
            path += "::" + self.take()
        if self.peek() == "(":
            arguments = self.arguments()
            if path != "T::lit":
                return ("call", path, arguments)
            (inner,) = arguments
            if inner[0] == "minus":
                return ("literal", "-" + inner[1][1])
            return ("literal", inner[1]) if inner[0] == "number" else ("lifted", inner)
        return ("constant", path) if path.isupper() or "_" in path else ("variable", path)


def text_of(node):
    kind = node[0]
    if kind == "number":
        return f"({node[1]})" if node[1].startswith("-") else node[1]
    if kind == "literal":
        return f"T::lit({node[1]})"
    if kind in ("constant", "variable"):
        return node[1]
    if kind == "lifted":
        return f"T::lit({text_of(node[1])})"
    if kind == "scaled":
        return f"({node[1]} * (1.0 + 1e-9))"
    if kind == "minus":
        return f"(-{text_of(node[1])})"
    if kind in ("binary", "compare"):
        return f"({text_of(node[2])} {node[1]} {text_of(node[3])})"
    if kind == "method":
        return f"{text_of(node[1])}.{node[2]}({', '.join(map(text_of, node[3]))})"
    if kind == "call":
        return f"{node[1]}({', '.join(map(text_of, node[2]))})"
    if kind == "cast":
        return f"({text_of(node[1])} as {node[2]})"
    if kind == "unused":
        return f"{{ let _ = {node[1]}; {text_of(node[2])} }}"
    if kind == "if":
        condition = text_of(node[1]).removeprefix("(").removesuffix(")")
        return f"(if {condition} {{ {text_of(node[2])} }} else {{ {text_of(node[3])} }})"
    raise ValueError(kind)


def is_f64(node):
    """Whether it is a plain number, which in a partial stands only on the right of an operator and as an argument."""
    return node[0] in ("number", "constant", "scaled") or (node[0] == "minus" and is_f64(node[1])) or (
        node[0] == "binary" and is_f64(node[2]) and is_f64(node[3]))


def relatives(name):
    return sorted({other for group in RELATIVES for other in group.split() if name in group.split()} - {name})


class Mutator:
    def __init__(self, variables, generic):
        self.variables = variables
        self.generic = generic

    def number(self, x):
        """A node as an operand of the expression's own type."""
        return ("literal", x[1]) if self.generic and x[0] == "number" else x

    def fits_left(self, node):
        return not (self.generic and is_f64(node))

    def here(self, node):
        """What may stand in the place of this node."""
        kind = node[0]
        if kind in ("number", "literal"):
            value = float(node[1])
            yield (kind, repr(value + 1.0))
            if value != 0.0:
                yield (kind, repr(-value))
                yield (kind, "0.0")
        elif kind == "constant":
            yield ("scaled", node[1])
            yield ("minus", node)
        elif kind == "variable":
            yield from (("variable", other) for other in self.variables if other != node[1])
        elif kind == "minus":
            yield node[1]
        elif kind == "compare":
            yield from (("compare", other, *node[2:]) for other in RELATIONS if other != node[1])
        elif kind == "binary":
            _, operator, left, right = node
            yield from (("binary", other, left, right) for other in OPERATORS if other != operator)
            yield left
            if self.fits_left(right):
                yield right
            if operator in "-/" and self.fits_left(right):
                yield ("binary", operator, right, left)
        elif kind == "method":
            _, receiver, name, arguments = node
            yield from (("method", receiver, other, arguments) for other in relatives(name))
            yield receiver
            if name in ("chain_mul", "chain_div"):
                yield ("binary", "*" if name == "chain_mul" else "/", receiver, *arguments)
            if len(arguments) == 1 and self.fits_left(arguments[0]) and name not in SYMMETRIC:
                yield ("method", arguments[0], name, (receiver,))
            for swapped in self.swapped(arguments):
                yield ("method", receiver, name, swapped)
        elif kind == "call":
            _, path, arguments = node
            module, _, name = path.rpartition("::")
            if len(arguments) == 1:
                yield from (("call", f"{module}::{other}", arguments) for other in relatives(name))
            yield arguments[0]
            for swapped in self.swapped(arguments):
                if name not in SYMMETRIC or swapped[2:] != arguments[2:]:
                    yield ("call", path, swapped)

    @staticmethod
    def swapped(arguments):
        for i, j in itertools.combinations(range(len(arguments)), 2):
            other = list(arguments)
            other[i], other[j] = other[j], other[i]
            yield tuple(other)

    def mutants(self, node):
        """Every expression that differs from this one in one place."""
        yield from self.here(node)
        for place, part in enumerate(node):
            if not isinstance(part, tuple):
                continue
            if part and isinstance(part[0], str):
                yield from (node[:place] + (other,) + node[place + 1:] for other in self.mutants(part))
            else:
                for i, argument in enumerate(part):
                    for other in self.mutants(argument):
                        changed = part[:i] + (other,) + part[i + 1:]
                        yield node[:place] + (changed,) + node[place + 1:]


# The table.

Site = collections.namedtuple("Site", "entry place start end source parameters generic mutants")
Mutant = collections.namedtuple("Mutant", "number site text")


def closing(text, at):
    """Where the bracket that opens at `at` closes, past strings."""
    pairs, open_brackets = {"(": ")", "[": "]", "{": "}"}, []
    while True:
        c = text[at]
        if c == '"':
            raw = text[at - 1] == "r"
            at += 1
            while text[at] != '"':
                at += 1 if raw or text[at] != "\\" else 2
        elif c == "/" and text[at + 1] == "/":
            at = text.index("\n", at)
        elif c in pairs:
            open_brackets.append(pairs[c])
        elif c in ")]}":
            if open_brackets.pop() != c:
                raise SyntaxError(f"unbalanced at {text[at - 20:at + 20]!r}")
            if not open_brackets:
                return at
        at += 1


def items(text, start, end):
    """The places of what commas separate between `start` and `end`."""
    at, first = start, start
    while at <= end:
        if at == end or text[at] == ",":
            if re.sub(r"//.*", "", text[first:at]).strip():
                yield first, at
            first = at + 1
        elif text[at] in "([{":
            at = closing(text, at)
        elif text.startswith("//", at):
            at = text.index("\n", at)
        at += 1


def sites_of(table):
    """Every expression of the table that a mutant can be made of."""
    header = re.compile(r"^\[(\w+)\] \w+\(([^)]*)\) -> (\([^)]*\)|\w+) \{$", re.M)
    for match in header.finditer(table):
        entry = match.group(1)
        stop = closing(table, match.end() - 1)
        is_fold = not match.group(3).startswith("(")
        operands = re.findall(r"(\w+)(?::\s*\w+)?", match.group(2).partition(":")[2] if is_fold else match.group(2))
        operands = [x for x in operands if x not in ("i32", "f64")]
        results = [] if is_fold else re.findall(r"\w+", match.group(3))

        def site(place, first, last, generic, others):
            source = table[first:last]
            node = Parser(source).whole()
            parameters = operands + (results if generic else []) if not is_fold else operands
            mutator = Mutator(parameters, generic)
            found = [text_of(other) for other in mutator.mutants(node)]
            found.append(f"(-{text_of(node)})" if not is_f64(node) else f"(-{text_of(mutator.number(node))})")
            found.append("T::lit(0.0)" if generic else "0.0")
            found += others
            original = text_of(node)
            unchanged = {original, f"(-{original})"} if original in ("T::lit(0.0)", "0.0") else {original}
            distinct = [text for text in dict.fromkeys(found) if text not in unchanged and text != "T::lit(-0.0)"]
            return Site(entry, place, first, last, source, parameters, generic, distinct)

        body = table[match.end():stop]
        for kind in re.finditer(r"^\s*(?:forms? .*?, )?(value|vector|term) \[|, (value|vector|term) \[", body, re.M):
            bracket = match.end() + kind.end() - 1
            for i, (first, last) in enumerate(items(table, bracket + 1, closing(table, bracket))):
                yield site(f"value {i}" if not is_fold else "term", first, last, is_fold, [])
            break
        bracket = match.end() + re.search(r"partials \[", body).end() - 1
        lists = [(bracket, closing(table, bracket))] if is_fold else [
            (table.index("[", first), closing(table, table.index("[", first)))
            for first, _ in items(table, bracket + 1, closing(table, bracket))]
        places = [(f"∂{j}/∂{i}", *place) for j, (first, last) in enumerate(lists)
                  for i, place in enumerate(items(table, first + 1, last))]
        texts = [text_of(Parser(table[first:last]).whole()) for _, first, last in places]
        for k, (name, first, last) in enumerate(places):
            yield site(name, first, last, True, texts[:k] + texts[k + 1:])


SWITCH = '''
#[doc(hidden)]
#[allow(missing_docs)]
pub mod mutant {
    use std::sync::atomic::{AtomicU32, Ordering};
    static ACTIVE: AtomicU32 = AtomicU32::new(u32::MAX);
    #[inline(always)]
    pub fn active() -> u32 {
        let active = ACTIVE.load(Ordering::Relaxed);
        if active == u32::MAX { ask() } else { active }
    }
    #[cold]
    #[inline(never)]
    fn ask() -> u32 {
        let active = std::env::var("MUTANT").ok().and_then(|mutant| mutant.parse().ok()).unwrap_or(0);
        if ACTIVE.swap(active, Ordering::Relaxed) == u32::MAX && std::env::var_os("MUTANT").is_some() {
            // The first failure is the answer; no other test need run.
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                print(panic);
                std::process::exit(101);
            }));
        }
        active
    }
}
'''


def with_switches(table, sites, dropped):
    """The table with a switch at every site, and the mutant of each line."""
    pieces, at, number, lines = [], 0, 0, {}
    mutants = []

    def line():
        return sum(piece.count("\n") for piece in pieces) + 1

    for site in sorted(sites, key=lambda site: site.start):
        numbered = []
        for text in site.mutants:
            number += 1
            if number not in dropped:
                numbered.append(Mutant(number, site, text))
        mutants += numbered
        pieces.append(table[at:site.start])
        at = site.end
        if not numbered:
            pieces.append(site.source)
            continue
        type_ = "T" if site.generic else "f64"
        parameters = ", ".join(f"{name}: {type_}" for name in site.parameters)
        pieces.append(f" {{\n#[cold] #[inline(never)] #[allow(unused_variables, unused_parens)]\n"
                      f"fn mutated{'<T: Rule>' if site.generic else ''}(number: u32, {parameters}) -> {type_} {{ match number {{\n")
        for mutant in numbered:
            lines[line()] = mutant
            pieces.append(f"{mutant.number} => {mutant.text},\n")
        first, last = numbered[0].number, numbered[-1].number
        pieces.append(f"_ => unreachable!(),\n}} }}\n"
                      f"match crate::mutant::active() {{ number @ {first}..={last} => "
                      f"mutated(number, {', '.join(site.parameters)}), _ => {site.source}\n}} }}")
    pieces.append(table[at:])
    return "".join(pieces), mutants, lines


def copy_workspace(scratch):
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ["Cargo.toml", "Cargo.lock", "README.md"]:
        shutil.copy2(ROOT / name, scratch / name)
    for crate in ["crates", "benches", "docs"]:
        subprocess.run(["rsync", "-a", "--delete", "--exclude=target", f"{ROOT / crate}/", f"{scratch / crate}/"], check=True) \
            if shutil.which("rsync") else shutil.copytree(ROOT / crate, scratch / crate, dirs_exist_ok=True,
                                                          ignore=shutil.ignore_patterns("target"))


def build(scratch, chosen, opt_level=1):
    """The test programs by name, or the files and lines that do not compile."""
    command = ["cargo", "test", "--no-run", "--message-format=json", "--profile", "mutants", *chosen,
               "--config", 'profile.mutants.package."*".opt-level=1']
    profile = {"CARGO_PROFILE_MUTANTS_INHERITS": "dev", "CARGO_PROFILE_MUTANTS_OPT_LEVEL": str(opt_level),
               "CARGO_PROFILE_MUTANTS_DEBUG": "none", "CARGO_INCREMENTAL": "0",
               "CARGO_TARGET_DIR": str(scratch / "target")}
    cargo = subprocess.run(command, cwd=scratch, env=os.environ | profile, stdout=subprocess.PIPE, text=True)
    programs, wrong, touched, messages = {}, set(), set(), []
    for message in map(json.loads, filter(None, cargo.stdout.splitlines())):
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message.get("executable"):
            programs[message["target"]["name"]] = message["executable"]
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            messages.append(message["message"]["rendered"])

            def places(span):
                yield span["file_name"], span["line_start"]
                if span.get("expansion"):
                    yield from places(span["expansion"]["span"])

            for span in message["message"]["spans"]:
                # What an error points at; its other labels may touch what is right.
                (wrong if span["is_primary"] else touched).update(places(span))
    if cargo.returncode != 0 and not wrong | touched:
        sys.exit("the copy does not build:\n" + "\n".join(messages[:5]))
    return (programs, None) if cargo.returncode == 0 else (None, ((wrong, touched), messages))


def run(program, number, directory, limit):
    """Whether the tests pass, with the last lines that they print."""
    environment = os.environ | {"MUTANT": str(number), "INSTA_UPDATE": "no", "LAW_CASES": "64",
                                "RUST_BACKTRACE": "0", "RUST_TEST_THREADS": "2"}
    try:
        done = subprocess.run([program, "-q"], cwd=directory, env=environment, capture_output=True, timeout=limit)
        return done.returncode == 0, (done.stderr + done.stdout).decode(errors="replace")[-2000:]
    except subprocess.TimeoutExpired:
        return False, "time limit"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", help="entries of the table, separated by commas")
    arguments.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target" / "mutants", help="where the copy goes")
    arguments.add_argument("--tests", default=",".join(TESTS), help="the test files asked, in this order")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--limit", type=float, default=300.0, help="seconds for one test program; beyond that a mutant counts as killed")
    arguments.add_argument("--deadline", type=float, default=float("inf"), help="seconds after which no further mutant is begun")
    arguments.add_argument("--list", action="store_true", help="print the mutants and stop")
    chosen = arguments.parse_args()

    table = (ROOT / TABLE).read_text()
    sites = list(sites_of(table))
    if chosen.list:
        for site in sites:
            for text in site.mutants:
                print(f"{site.entry} {site.place}: {' '.join(site.source.split())}  →  {text}")
        print(f"{sum(len(site.mutants) for site in sites)} mutants of {len(sites)} expressions in "
              f"{len({site.entry for site in sites})} entries")
        return 0

    tests = chosen.tests.split(",")
    copy_workspace(chosen.scratch)
    library = chosen.scratch / "crates/ad-core/src/lib.rs"
    library.write_text(library.read_text() + SWITCH)
    dropped = set()
    while True:
        text, mutants, lines = with_switches(table, sites, dropped)
        (chosen.scratch / TABLE).write_text(text)
        programs, failed = build(chosen.scratch, ["-p", "ad-core", *itertools.chain(*(["--test", test] for test in tests))])
        if programs is not None:
            break
        wrong = next(filter(None, ({lines[line].number for file, line in places if file == TABLE and line in lines}
                                   for places in failed[0])), None)
        if not wrong:
            sys.exit("the copy does not build:\n" + "\n".join(failed[1][:5]))
        print(f"{len(wrong)} mutants do not compile", flush=True)
        dropped |= wrong
    directory = chosen.scratch / "crates/ad-core"

    # Without a mutant all tests pass, or their failures would mean nothing.
    for test in tests:
        began = time.monotonic()
        passed, output = run(programs[test], 0, directory, chosen.limit)
        print(f"{test} without a mutant: {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.1f} s", flush=True)
        if not passed:
            sys.exit(output)

    if chosen.only:
        mutants = [mutant for mutant in mutants if mutant.site.entry in chosen.only.split(",")]
    began = time.monotonic()

    def try_one(mutant):
        if time.monotonic() - began > chosen.deadline:
            return mutant, "not tried"
        for test in tests:
            passed, _ = run(programs[test], mutant.number, directory, chosen.limit)
            if not passed:
                return mutant, test
        return mutant, None

    killers, missed, equivalent = collections.Counter(), [], []
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        for done, (mutant, killer) in enumerate(pool.map(try_one, mutants), 1):
            name = f"{mutant.site.entry} {mutant.site.place}: {mutant.text}"
            if killer:
                killers[killer] += 1
            elif name in EQUIVALENT:
                equivalent.append(name)
            else:
                missed.append(name)
                print(f"missed: {name}    (the rule: {' '.join(mutant.site.source.split())})", flush=True)
            if done % 100 == 0:
                print(f"{done} of {len(mutants)} after {time.monotonic() - began:.0f} s", flush=True)

    not_tried = killers.pop("not tried", 0)
    print(f"\n{len(mutants)} mutants of {len({mutant.site for mutant in mutants})} expressions; {len(dropped)} more do not compile")
    print("killed by " + ", ".join(f"{test}: {killers[test]}" for test in tests))
    print(f"killed {sum(killers.values())}, equivalent {len(equivalent)}, missed {len(missed)}, not tried {not_tried}")
    for name in sorted(set(EQUIVALENT) - set(equivalent)):
        if not chosen.only and not not_tried:
            print(f"listed as equivalent, but killed or gone: {name}")
    return 1 if missed or not_tried else 0


if __name__ == "__main__":
    sys.exit(main())
