#!/usr/bin/env python3
"""The mutants of cargo-mutants, all of them in one build.

    tools/mutate_code.py crates/ad-core/src/replay/engine.rs [FILE...]
    tools/mutate_code.py --list FILE...      says what would be tried

cargo-mutants builds the crate again for each mutant, a minute each. This
script takes its list (`cargo mutants --list --json`) and puts every mutant of
the files into one copy of the workspace, behind a question asked at run time
(the environment variable MUTANT), so that one build serves all of them. It
then runs every test alone, once, and notes which mutants it reaches; a mutant
is tried with the tests that reach it, the quick ones that kill most first.

A mutant is killed if a test fails or takes far longer than it did. One that no
test reaches is missed. What is missed stands at the end, and the exit status
is 1. tools/missed_mutants.txt has those that no test can tell from the
original, or need not, with the reason.

Besides Python's standard library it takes cargo-mutants and two packages that
read Rust: pip install tree-sitter tree-sitter-rust.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

try:
    import tree_sitter
    import tree_sitter_rust
except ModuleNotFoundError:
    sys.exit("this takes two packages: pip install tree-sitter tree-sitter-rust (in a python3 -m venv, if pip refuses)")

from mutate_rules import ROOT, build, copy_workspace

# Test programs that reach everything and take long; tests that start themselves again and kill that.
SLOW = {"accuracy", "huge"}
KILLING = re.compile("kill")
ACCEPTED = ROOT / "tools" / "missed_mutants.txt"

SWITCH = '''
#[doc(hidden)]
#[allow(missing_docs)]
pub mod mutant {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::OnceLock;

    const UNKNOWN: u32 = u32::MAX;
    const TRACE: u32 = u32::MAX - 1;
    static ACTIVE: AtomicU32 = AtomicU32::new(UNKNOWN);
    static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
    static FILE: OnceLock<std::fs::File> = OnceLock::new();

    // Not inlined: the compiler would take a quarter of an hour for the engines.
    #[inline]
    pub fn is(number: u32) -> bool {
        let active = ACTIVE.load(Ordering::Relaxed);
        if active < TRACE { active == number } else { ask(number) }
    }

    #[cold]
    #[inline(never)]
    fn ask(number: u32) -> bool {
        if ACTIVE.load(Ordering::Relaxed) == UNKNOWN {
            let wanted = std::env::var("MUTANT").ok().and_then(|mutant| mutant.parse().ok());
            ACTIVE.store(wanted.unwrap_or(TRACE), Ordering::Relaxed);
            return is(number);
        }
        if !REACHED[number as usize].swap(true, Ordering::Relaxed) {
            if let Some(path) = std::env::var_os("MUTANT_TRACE") {
                let file = FILE.get_or_init(|| std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap());
                let mut file = file;
                file.write_all(format!("{number}\\n").as_bytes()).unwrap();
            }
        }
        false
    }
}
'''


class Mutant:
    """One change: `text` in the place of the bytes from `start` to `end` of the site that holds it."""

    def __init__(self, number, entry, line, start, end, text, form):
        self.number, self.file = number, entry["file"]
        self.start, self.end, self.text, self.form = start, end, text, form
        self.name = f"{entry['name']} @ {line.strip().decode()}"
        # Without line and column, so that a list of mutants outlives a new line above them.
        self.key = re.sub(r":\d+:\d+:", ":", self.name, count=1)


class Source:
    """A file, its tree, and the places of its mutants."""

    def __init__(self, path):
        self.path = path
        self.text = (ROOT / path).read_bytes()
        self.lines = self.text.split(b"\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        language = tree_sitter.Language(tree_sitter_rust.language())
        self.tree = tree_sitter.Parser(language).parse(self.text)

    def offset(self, place):
        line = self.lines[place["line"] - 1].decode()
        return self.starts[place["line"] - 1] + len(line[:place["column"] - 1].encode())

    def around(self, start, end, kinds):
        """The smallest node of one of these kinds that holds the bytes."""
        node = self.tree.root_node.descendant_for_byte_range(start, end)
        while node is not None and node.type not in kinds:
            node = node.parent
        return node

    def is_constant(self, start, end):
        """Whether the compiler computes what stands here, so that nothing can be asked at run time."""
        node = self.tree.root_node.descendant_for_byte_range(start, end)
        while node is not None:
            modifiers = [child for child in node.children if child.type == "function_modifiers"] if node.type == "function_item" else []
            if node.type in ("const_item", "static_item") or any(b"const" in child.text for child in modifiers):
                return True
            node = node.parent
        return False

    def mutant(self, number, entry):
        """The mutant with its place, or None where it cannot be a question."""
        start, end = self.offset(entry["span"]["start"]), self.offset(entry["span"]["end"])
        if self.is_constant(start, end):
            return None
        replacement, genre = entry["replacement"].encode(), entry["genre"]
        at = (number, entry, self.lines[entry["span"]["start"]["line"] - 1])
        if genre == "FnValue":
            body = self.around(start, end, {"block"})
            return Mutant(*at, body.start_byte + 1, body.start_byte + 1, replacement, "return")
        if genre == "MatchArmGuard":
            return Mutant(*at, start, end, replacement, "expression")
        if genre == "MatchArm":
            arm = self.around(start, end, {"match_arm"})
            # Arms that a question guards are no longer exhaustive by themselves.
            if all(other.child_by_field_name("pattern").text != b"_" for other in arm.parent.children if other.type == "match_arm"):
                return None
            pattern = arm.child_by_field_name("pattern")
            guard = pattern.child_by_field_name("condition")
            node, form = (pattern, "pattern") if guard is None else (guard, "guard")
            return Mutant(*at, node.start_byte, node.end_byte, b"", form)
        kinds = {"BinaryOperator": {"binary_expression", "compound_assignment_expr"}, "UnaryOperator": {"unary_expression"},
                 "StructField": {"struct_expression"}}.get(genre)
        # An operator's own node is a leaf below the expression; anything else (a chain of `let`) is not meant.
        node = self.around(start, end, kinds | {"let_chain", "negative_literal"}) if kinds else None
        if node is None or node.type not in kinds:
            return None
        if genre == "StructField":
            end += len(re.match(rb"\s*,?", self.text[end:]).group())
        text = self.text[node.start_byte:start] + replacement + self.text[end:node.end_byte]
        return Mutant(*at, node.start_byte, node.end_byte, text, "expression")

    def with_switches(self, mutants):
        """The text in which each mutant is a question, and the mutant of each line that is one's own."""
        sites = collections.defaultdict(list)
        for mutant in mutants:
            sites[mutant.start, mutant.end].append(mutant)
        places = sorted(sites, key=lambda place: (place[0], -place[1]))

        def marked(mutant, text):
            return b"\n/*<%d>*/ %s /*</%d>*/\n" % (mutant.number, text, mutant.number)

        def render(start, end, inside):
            pieces, at = [], start
            while inside:
                (first, last), *rest = inside
                nested = [place for place in rest if place[1] <= last and place[0] < last] if last > first else []
                inside = [place for place in rest if place not in set(nested)]
                pieces.append(self.text[at:first])
                original = render(first, last, nested)
                at = last
                for mutant in sites[first, last]:
                    asked = b"crate::mutant::is(%d)" % mutant.number
                    if mutant.form == "return":
                        original += b" if %s { return %s; } " % (asked, marked(mutant, mutant.text))
                    elif mutant.form == "guard":
                        original = b"!%s && (%s)" % (asked, original)
                    elif mutant.form == "pattern":
                        original += b" if !%s" % asked
                    else:
                        original = b"(if %s { %s } else { %s })" % (asked, marked(mutant, mutant.text), original)
                pieces.append(original)
            pieces.append(self.text[at:end])
            return b"".join(pieces)

        text = render(0, len(self.text), places).decode()
        owner = {}
        for match in re.finditer(r"/\*<(\d+)>\*/.*?/\*</\1>\*/", text, re.S):
            first = text.count("\n", 0, match.start()) + 1
            for line in range(first, first + match.group().count("\n") + 1):
                owner[line] = int(match.group(1))
        return text, owner


def run(program, test, directory, limit, **variables):
    """Whether this test passes within so many seconds of the processor, and how long it took."""
    environment = os.environ | {"INSTA_UPDATE": "no", "INSTA_FORCE_PASS": "0", "LAW_CASES": "64", "PROPTEST_CASES": "64",
                                "RUST_BACKTRACE": "0", "RUST_MIN_STACK": str(64 << 20)} | variables
    # A mutant that loops for ever may not take the machine's memory with it. The
    # processor's time is the limit, since others may use the machine as well.
    limits = f'ulimit -v {4 << 20}; ulimit -t {int(limit) + 1}; exec "$@"'
    began = time.monotonic()
    process = subprocess.Popen(["sh", "-c", limits, "sh", program, "-q", "--exact", test], cwd=directory, env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    try:
        passed = process.wait(timeout=4 * limit + 30) == 0
    except subprocess.TimeoutExpired:
        passed = False
    # With what it started: a test may run itself again.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return passed, time.monotonic() - began


def accepted():
    """The mutants that the file names: each a line that begins with the file's path, their reason below."""
    return {line.strip() for line in ACCEPTED.read_text().splitlines() if line.startswith("crates/")}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("files", nargs="+", help="source files of one crate, from the workspace's root")
    arguments.add_argument("--scratch", type=pathlib.Path, default=ROOT / "target" / "mutants", help="where the copy and its build go, a few GB (target/mutants)")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--opt-level", type=int, default=1, help="0 for the engines: a question in each of their "
                           "unrolled loops takes the optimiser a quarter of an hour")
    arguments.add_argument("--tests", default="", help="the test programs asked, separated by commas; unit tests are named "
                           "like the crate, ad_core (all that are not slow)")
    arguments.add_argument("--budget", type=float, default=float("inf"), help="how many seconds of tests a mutant is tried "
                           "with at most; beyond that it counts as missed")
    arguments.add_argument("--shard", default="0/1", help="k/n: each nth mutant, from the kth on")
    arguments.add_argument("--only", default="", help="a regular expression that the names of the mutants match")
    arguments.add_argument("--list", action="store_true", help="print the mutants and stop")
    chosen = arguments.parse_args()

    crates = {file.split("/")[1] for file in chosen.files if re.fullmatch(r"crates/[^/]+/src/.*\.rs", file)}
    if len(crates) != 1 or not all((ROOT / file).is_file() for file in chosen.files):
        arguments.error("name files of one crate as from the workspace's root, such as crates/ad-core/src/derive.rs")
    package = crates.pop()
    command = ["cargo", "mutants", "--list", "--json", "-p", package]
    for file in chosen.files:
        command += ["-f", file]
    entries = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    sources = {file: Source(file) for file in sorted({entry["file"] for entry in entries})}
    shard = re.fullmatch(r"(\d+)/(\d+)", chosen.shard)
    part, parts = map(int, shard.groups()) if shard else (0, 0)
    if not part < parts:
        arguments.error("--shard is k/n with k from 0 to n − 1")
    mutants, unknown = [], []
    for number, entry in enumerate(entries, 1):
        if number % parts == part and re.search(chosen.only, entry["name"]):
            mutant = sources[entry["file"]].mutant(number, entry)
            mutants.append(mutant) if mutant else unknown.append(entry["name"])
    # Of several alike on one line the first has no number.
    alike = collections.Counter()
    for mutant in mutants:
        alike[mutant.key] += 1
        if alike[mutant.key] > 1:
            mutant.name, mutant.key = (f"{text} #{alike[mutant.key]}" for text in (mutant.name, mutant.key))
    if chosen.list:
        print("\n".join(mutant.name for mutant in mutants))
        print(f"{len(mutants)} mutants, and {len(unknown)} that this script cannot try")
        return 0

    copy_workspace(chosen.scratch)
    directory = chosen.scratch / "crates" / package
    library = directory / "src/lib.rs"
    library.write_text((ROOT / "crates" / package / "src/lib.rs").read_text()
                       + SWITCH.replace("COUNT", str(len(entries) + 1)))
    dropped = set()
    while True:
        owners = {}
        for file, source in sources.items():
            text, owners[file] = source.with_switches(
                [mutant for mutant in mutants if mutant.file == file and mutant.number not in dropped])
            (chosen.scratch / file).write_text(text)
        programs, failed = build(chosen.scratch, ["-p", package, "--lib", "--tests"], chosen.opt_level)
        if programs is not None:
            break
        wrong = next(filter(None, ({owners[file][line] for file, line in places if line in owners.get(file, {})}
                                   for places in failed[0])), None)
        if not wrong:
            sys.exit("the copy does not build:\n" + "\n".join(failed[1][:5]))
        print("\n".join(f"does not compile: {mutant.name}" for mutant in mutants if mutant.number in wrong), flush=True)
        dropped |= wrong
    mutants = [mutant for mutant in mutants if mutant.number not in dropped]

    # Every test alone: whether it passes without a mutant, which ones it reaches, how long it takes.
    tests, seconds, reached = [], {}, collections.defaultdict(list)
    for name, program in programs.items():
        if name in chosen.tests.split(",") or not chosen.tests and name not in SLOW:
            listed = subprocess.run([program, "--list", "--format=terse"], cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout
            tests += [(program, line.removesuffix(": test")) for line in listed.splitlines()
                      if line.endswith(": test") and not KILLING.search(line)]
    traces = chosen.scratch / "traces"
    traces.mkdir(exist_ok=True)

    def trace(place):
        number, (program, test) = place
        path = traces / str(number)
        path.unlink(missing_ok=True)
        passed, took = run(program, test, directory, 600, MUTANT_TRACE=str(path))
        return passed, took, [int(line) for line in path.read_text().split()] if path.exists() else []

    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        for (program, test), (passed, took, numbers) in zip(tests, pool.map(trace, enumerate(tests))):
            if not passed:
                print(f"left out, since it fails without a mutant: {test} of {pathlib.Path(program).name}", flush=True)
                continue
            seconds[program, test] = took
            for number in numbers:
                reached[number].append((program, test))
    print(f"{len(mutants)} mutants; {len(seconds)} tests that take {sum(seconds.values()):.0f} s", flush=True)

    kills, lock, unsteady = collections.Counter(), threading.Lock(), set()

    def try_one(mutant):
        with lock:
            order = sorted(reached[mutant.number], key=lambda test: (seconds[test] + 0.02) / (1 + kills[test]))
        spent = 0
        for test in order:
            spent += seconds[test]
            if spent > chosen.budget:
                break
            if test in unsteady or run(*test, directory, 10 * seconds[test] + 5, MUTANT=str(mutant.number))[0]:
                continue
            # A test that fails without a mutant as well tells nothing, now or later.
            if not run(*test, directory, 10 * seconds[test] + 5, MUTANT="0")[0]:
                unsteady.add(test)
                print(f"asked no more, since it failed without a mutant: {test[1]}", flush=True)
                continue
            with lock:
                kills[test] += 1
            return mutant, True
        return mutant, False

    listed, used = accepted(), set()
    counts, missed, began = collections.Counter(), [], time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        for done, (mutant, killed) in enumerate(pool.map(try_one, mutants), 1):
            if killed:
                counts["killed"] += 1
            elif mutant.key in listed:
                counts["listed"] += 1
                used.add(mutant.key)
            else:
                missed.append(mutant)
                print(f"missed{'' if reached[mutant.number] else ', reached by no test'}: {mutant.name}", flush=True)
            if done % 100 == 0:
                print(f"{done} of {len(mutants)} after {time.monotonic() - began:.0f} s", flush=True)

    print(f"\n{len(mutants)} mutants of {len(sources)} files; {len(dropped)} more do not compile, {len(unknown)} cannot be tried here")
    print("\n".join(f"not tried: {name}" for name in unknown))
    print(f"killed {counts['killed']}, listed with a reason {counts['listed']}, missed {len(missed)}")
    files = tuple(sources)
    if (chosen.shard, chosen.only) == ("0/1", ""):
        for key in sorted(key for key in listed - used if key.startswith(files)):
            print(f"listed, but killed or gone: {key}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
