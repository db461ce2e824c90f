//! A tape file drawn part by part: heads, counts, rows with operations and operands that fit, functions that call
//! functions and derivatives of them, and at most two words that say something else. So the checks are reached that lie
//! behind all counts. What has no such word has to be loaded; what is loaded is used.

#![no_main]

mod exercise;
mod seal;

use ad_core::{Op, Tape};
use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = File::new(bytes);
    // To use a tape takes a hundred times as long as to load it; no choice of the fuzzer's, which would choose it always.
    let is_used = bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte)).is_multiple_of(16);
    file.draw();
    let is_spoiled = file.is_spoiled;
    match Tape::read_from(&file.sealed()[..]) {
        Ok(tape) => {
            assert_eq!(tape.check(), Ok(()));
            if is_used {
                exercise::use_it(&tape);
            }
        }
        Err(error) => assert!(is_spoiled, "{error}"),
    }
});

/// A function among the parts.
#[derive(Clone, Copy)]
struct Function {
    part: u32,
    operands: u32,
    results: u32,
    is_called: bool,
}

/// The numbers of inputs and outputs of a tape.
#[derive(Clone, Copy)]
struct Shape {
    inputs: u32,
    outputs: u32,
}

struct File<'a> {
    choices: Unstructured<'a>,
    body: Vec<u8>,
    functions: Vec<Function>,
    parts: u32,
    /// Which words, counted as they are written, are to be others; and how many were written.
    spoiled: [u32; 2],
    words: u32,
    is_spoiled: bool,
}

/// Words of a part's head.
const HEAD: usize = 64;
const NUMBERS: [f64; 8] = [0.5, 0.0, -0.0, 1.0, -2.5, 1e300, f64::INFINITY, f64::NAN];

impl<'a> File<'a> {
    fn new(bytes: &'a [u8]) -> File<'a> {
        let choices = Unstructured::new(bytes);
        let mut file = File {
            choices,
            body: Vec::new(),
            functions: Vec::new(),
            parts: 0,
            spoiled: [u32::MAX; 2],
            words: 0,
            is_spoiled: false,
        };
        // Most files have one such word, some two, some none.
        let count = [1, 1, 1, 2, 0][file.choose(5) as usize];
        for number in 0..count {
            file.spoiled[number] = file.choose(400);
        }
        file
    }

    /// A number below `end`; 0 once the bytes are used up.
    fn choose(&mut self, end: u32) -> u32 {
        self.choices.int_in_range(0..=end.max(1) - 1).unwrap_or(0)
    }

    fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.choose(most + 1 - least)
    }

    /// A word that has a meaning, or another one.
    fn word(&mut self, word: u32) {
        let mut written = word;
        if self.spoiled.contains(&self.words) {
            let other = self.choose(256);
            let others = [0, 1, 2, 3, word.wrapping_add(1), word.wrapping_sub(1), 1 << 31, u32::MAX];
            written = match self.choose(12) as usize {
                number @ 0..8 => others[number],
                8 => word ^ 1 << (other % 32),
                9 => word ^ (other % 4) << 8,
                _ => other,
            };
            self.is_spoiled |= written != word;
        }
        self.words += 1;
        self.raw(written);
    }

    fn raw(&mut self, word: u32) {
        self.body.extend(word.to_le_bytes());
    }

    fn words(&mut self, words: impl IntoIterator<Item = u32>) {
        words.into_iter().for_each(|word| self.word(word));
    }

    fn long(&mut self, long: u64) {
        self.words([long as u32, (long >> 32) as u32]);
    }

    fn number(&mut self) {
        // Any number will do: there is nothing to be spoiled.
        let number = NUMBERS[self.choose(8) as usize];
        self.body.extend(number.to_bits().to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.filled(text);
    }

    /// The bytes of a text, and the zeros behind them.
    fn filled(&mut self, text: &str) {
        self.body.extend(text.as_bytes());
        let filled = (4 + text.len()).next_multiple_of(16) - 4 - text.len();
        self.body.resize(self.body.len() + filled, 0);
    }

    fn head<const N: usize>(&mut self, words: [u32; N]) {
        self.words(words);
        (N..HEAD).for_each(|_| self.raw(0));
        self.parts += 1;
    }

    fn place(&mut self) {
        let (file, line) = (self.choose(2), self.choose(100));
        let is_nearest = self.choose(2);
        self.words([file, line, is_nearest]);
    }

    fn draw(&mut self) {
        self.raw(operations().count() as u32);
        for op in operations() {
            // Names that are spoiled are what other fuzzers find.
            let name = op.info().name;
            self.raw(name.len() as u32);
            self.filled(name);
        }
        self.word(2);
        self.text("src/main.rs");
        self.text("");
        let count_at = self.body.len();
        self.raw(0);
        let levels = self.between(0, 3);
        for _ in 0..levels {
            let shape = self.tape(false);
            let body = self.parts - 1;
            self.any_loop(body, shape);
            if self.choose(3) == 0 {
                self.any_loop(body, shape);
            }
            for _ in 0..self.choose(3) {
                self.derivative();
            }
        }
        self.tape(true);
        self.body[count_at..count_at + 4].copy_from_slice(&self.parts.to_le_bytes());
    }

    /// A list, which calls all functions that are not called yet if it is the last one, and a tape of it.
    fn tape(&mut self, is_last: bool) -> Shape {
        let called: Vec<usize> = (0..self.functions.len())
            .filter(|&function| is_last && !self.functions[function].is_called || self.choose(3) == 0)
            .collect();
        called.iter().for_each(|&function| self.functions[function].is_called = true);
        let (inputs, params, constants) = (self.between(1, 3), self.choose(3), self.choose(3));
        let first_row = constants + inputs + params;
        let locations = self.between(1, 2);
        let (rows, operands) = self.rows(&called, constants, first_row, locations);
        let num_values = first_row + rows.len() as u32;
        let (outputs, guards, escapes) = (self.between(1, 3), self.choose(3), self.choose(2));

        let functions = called.len() as u32;
        let num_rows = rows.len() as u32;
        let wide = operands.len() as u32;
        self.head([1, inputs, params, constants, num_rows, wide, outputs, functions, locations, guards, escapes]);
        let letter = ["y", "x", "g", "out"][self.choose(4) as usize];
        self.text(letter);
        (0..constants).for_each(|_| self.number());
        let naming = self.choose(4);
        for input in 0..inputs {
            match naming {
                0 | 1 => self.word(0),
                2 => {
                    self.words([1, 0, 0, 0]);
                    self.text(&format!("a{input}"));
                }
                _ => {
                    self.words([2, 0, input + 1, 0]);
                    self.text("x");
                }
            }
        }
        let is_named = self.choose(2);
        for param in 0..params {
            self.word(is_named);
            if is_named == 1 {
                self.text(&format!("p{param}"));
            }
        }
        (0..locations).for_each(|_| self.place());
        let parts: Vec<u32> = called.iter().map(|&function| self.functions[function].part).collect();
        self.words(parts);
        self.words(rows.into_iter().flatten());
        self.words(operands);
        for _ in 0..outputs {
            let output = self.choose(num_values);
            self.word(output);
        }
        for _ in 0..guards {
            self.guard(num_values);
        }
        for _ in 0..escapes {
            let operand = self.choose(num_values);
            self.word(operand);
            self.number();
            self.place();
            self.words([0, 0]);
        }

        let (list, is_named) = (self.parts - 1, self.choose(2));
        self.head([2, list, params, is_named]);
        if is_named == 1 {
            self.text("f");
        }
        (0..params).for_each(|_| self.number());
        Shape { inputs, outputs }
    }

    /// Rows that call these functions, and others between them; and the operands that they do not hold themselves.
    fn rows(&mut self, called: &[usize], constants: u32, first_row: u32, locations: u32) -> (Vec<[u32; 3]>, Vec<u32>) {
        let (mut rows, mut wide) = (Vec::new(), Vec::new());
        let call_code = operations().position(|op| op == Op::Call).unwrap_or(0) as u32;
        let further = operations().position(|op| op == Op::FurtherResult).unwrap_or(0) as u32;
        let mut calls: Vec<u32> = (0..called.len() as u32).collect();
        if !called.is_empty() && self.choose(2) == 0 {
            // One function in two rows.
            calls.push(self.choose(called.len() as u32));
        }
        let mut others = self.between(u32::from(called.is_empty()), 6);
        while others > 0 || !calls.is_empty() {
            let location = self.choose(locations) << 10;
            let below = first_row + rows.len() as u32;
            let (count, results, head, function) = if others > 0 && (calls.is_empty() || self.choose(2) == 0) {
                others -= 1;
                let code = self.choose(Op::ALL.len() as u32);
                let info = Op::ALL[code as usize].info();
                let count = if info.name == "sum" { self.between(1, 5) } else { info.probes.len() as u32 };
                (count, info.forms.len() as u32, code, None)
            } else {
                let number = calls.swap_remove(self.choose(calls.len() as u32) as usize);
                let function = self.functions[called[number as usize]];
                (function.operands, function.results, call_code, Some(number))
            };
            let mut operands: Vec<u32> = (0..count).map(|_| self.choose(below)).collect();
            // A row of constants alone would be one.
            if function.is_none() && operands.iter().all(|&operand| operand < constants) {
                operands[0] = self.between(constants, below - 1);
            }
            rows.push(match (function, &operands[..]) {
                (None, &[a]) => [head | 1 << 8 | location, a, 0],
                (None, &[a, b]) => [head | 2 << 8 | location, a, b],
                _ => {
                    wide.extend(&operands);
                    [head | 3 << 8 | location, count, function.unwrap_or(0)]
                }
            });
            rows.extend((1..results).map(|_| [further | location, 0, 0]));
        }
        (rows, wide)
    }

    fn guard(&mut self, num_values: u32) {
        let question = self.choose(14);
        let operands = [self.choose(num_values), self.choose(num_values)];
        let (kind, is_some, answer) = match question {
            6 => (1, 1, i64::from(self.choose(3)) - 1),
            11 => (2, 1, i64::from(self.choose(9)) - 4),
            _ => (0, 1, i64::from(self.choose(2))),
        };
        // Only an ordering and an integer can be absent.
        let is_absent = kind != 0 && self.choose(4) == 0;
        let (is_some, answer) = if is_absent { (0, 0) } else { (is_some, answer) };
        self.words([question, operands[0], operands[1], kind, is_some]);
        self.long(answer as u64);
        self.place();
        self.words([0, 0]);
    }

    /// A loop that runs this body.
    fn any_loop(&mut self, body: u32, Shape { inputs, outputs }: Shape) {
        let operands = self.between(1, 5);
        let state = self.choose(inputs.min(outputs) + 1);
        let others = outputs - state;
        let is_summed = self.choose(2);
        let mut count = u64::from(self.between(1, 4));
        // What has to be there for each iteration is little.
        if (is_summed == 1 || others == 0) && self.choose(6) == 0 {
            count = 1 << self.choose(63);
        }
        let is_short = count <= 4;
        let last = count as i64 - 1;
        let sources: Vec<(u32, u32, i64, i64)> = (0..inputs)
            .map(|input| {
                if input < state {
                    return (0, state - 1 - input, 0, 0);
                }
                let first = i64::from(self.choose(operands));
                match self.choose(3) {
                    0 if is_short => (2, 0, 0, 0),
                    1 if first + last < i64::from(operands) => (1, 0, first, 1),
                    2 if first >= last => (1, 0, first, -1),
                    _ => (1, 0, first, 0),
                }
            })
            .collect();
        let listed = sources.iter().filter(|source| source.0 == 2).count() as u64 * count;
        let is_named = self.choose(2);
        let [low, high] = [count as u32, (count >> 32) as u32];
        let words = [3, body, operands, inputs, outputs, state, is_summed, is_named, low, high, listed as u32];
        self.head(words);
        if is_named == 1 {
            self.text("loop");
        }
        for (kind, place, first, stride) in sources {
            self.words([kind, place]);
            self.long(first as u64);
            self.long(stride as u64);
        }
        for output in 0..outputs {
            match output.checked_sub(others) {
                None => self.words([1, others - 1 - output]),
                Some(place) => self.words([0, place]),
            }
        }
        for _ in 0..u64::from(state) + listed {
            let operand = self.choose(operands);
            self.word(operand);
        }
        let runs = if is_summed == 1 { 1 } else { count as u32 };
        let results = state + if others == 0 { 0 } else { others * runs };
        self.function(operands, results);
    }

    fn function(&mut self, operands: u32, results: u32) {
        self.functions.push(Function { part: self.parts - 1, operands, results, is_called: false });
    }

    /// The adjoint of a function, or one that is rearranged.
    fn derivative(&mut self) {
        let number = self.choose(self.functions.len() as u32) as usize;
        self.functions[number].is_called = true;
        let of = self.functions[number];
        if of.operands + of.results > 64 {
            return self.functions[number].is_called = false;
        }
        if self.choose(2) == 0 {
            self.head([4, of.part]);
            return self.function(of.operands + of.results, of.operands);
        }
        let operands = 2 * self.between(1, 3);
        let results = (of.results + self.choose(3)).next_multiple_of(2);
        self.head([5, of.part, operands, of.operands, results]);
        for _ in 0..of.operands {
            let operand = self.choose(operands + 1);
            self.word(operand);
        }
        for _ in 0..results {
            let result = self.choose(of.results);
            self.word(result);
        }
        self.function(operands, results);
    }

    fn sealed(self) -> Vec<u8> {
        let mut bytes = b"ad-tape\n".to_vec();
        bytes.extend([1, 0].map(u32::to_le_bytes).as_flattened());
        bytes.extend((self.body.len() as u64).to_le_bytes());
        bytes.extend(self.body);
        seal::sealed(bytes)
    }
}

/// All operations, in the order of their numbers in these files.
fn operations() -> impl Iterator<Item = Op> {
    Op::ALL.iter().copied().chain([Op::FurtherResult, Op::Call])
}
