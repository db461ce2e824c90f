//! What changed between two tapes.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::content::{Contents, constant_bits};
use super::{ALL_DIGITS, exact, plural};
use crate::formula::{Accent, DIGITS, Formulas, Script};
use crate::ops::Op;
use crate::record::{Guard, SourceLocation};
use crate::tape::{Tape, TapeData};

/// What a [`Difference`] concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// An input.
    Input,
    /// A parameter.
    Parameter,
    /// A literal that only one of the tapes has.
    Constant,
    /// A row.
    Row,
    /// A guard.
    Guard,
    /// An output.
    Output,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Input => "input",
            Part::Parameter => "parameter",
            Part::Constant => "constant",
            Part::Row => "row",
            Part::Guard => "guard",
            Part::Output => "output",
        })
    }
}

/// One difference between two tapes; from [`Tape::diff`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub part: Part,
    /// As the old tape prints it; none if it was added.
    pub old: Option<String>,
    /// As the new tape prints it; none if it was removed.
    pub new: Option<String>,
    /// Where it stands in the code of the old tape, if it is a row or a guard.
    pub old_location: Option<SourceLocation>,
    /// Where it stands in the code of the new tape, if it is a row or a guard.
    pub new_location: Option<SourceLocation>,
}

/// What changed from one tape to another; from [`Tape::diff`].
///
/// `Display` prints it like a unified diff of the two printed lists, with up to
/// two unchanged lines around each change, named as in the new tape.
#[derive(Debug, Clone, PartialEq)]
pub struct TapeDiff {
    differences: Vec<Difference>,
    text: String,
}

impl TapeDiff {
    /// Whether the tapes are the same in what [`Tape::content_hash`] covers.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }

    /// The differences: inputs, parameters, constants, rows, guards, outputs.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }
}

impl fmt::Display for TapeDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two lists brought side by side: an entry of the old one, of the new one, or of both.
type Alignment = Vec<(Option<usize>, Option<usize>)>;

/// Stirs a number into a hash.
fn mix(hash: u64, number: u64) -> u64 {
    let z = (hash.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z ^ z >> 29
}

fn mix_text(text: &str) -> u64 {
    text.bytes().fold(text.len() as u64, |hash, byte| mix(hash, u64::from(byte)))
}

/// The entries that occur in both lists, the k-th occurrence with the k-th: the
/// longest run of them in which both sides ascend.
fn anchors(old: &[u64], new: &[u64]) -> Vec<(usize, usize)> {
    let mut places: HashMap<u64, (usize, Vec<usize>)> = HashMap::new();
    for (j, &token) in new.iter().enumerate() {
        places.entry(token).or_default().1.push(j);
    }
    // For each length the end of a run of that length that leaves most room, and
    // for each pair the one before it.
    let mut pairs: Vec<(usize, usize, Option<usize>)> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (i, token) in old.iter().enumerate() {
        let Some((used, places)) = places.get_mut(token) else { continue };
        let Some(&j) = places.get(*used) else { continue };
        *used += 1;
        let length = ends.partition_point(|&end| pairs[end].1 < j);
        pairs.push((i, j, length.checked_sub(1).map(|shorter| ends[shorter])));
        match ends.get_mut(length) {
            Some(end) => *end = pairs.len() - 1,
            None => ends.push(pairs.len() - 1),
        }
    }
    let mut run = Vec::new();
    let mut next = ends.last().copied();
    while let Some(pair) = next {
        let (i, j, before) = pairs[pair];
        run.push((i, j));
        next = before;
    }
    run.reverse();
    run
}

/// The longest common subsequence by the fewest insertions and removals, unless
/// there are more than a limit.
///
/// Source: Myers, An O(ND) difference algorithm and its variations (1986).
fn shortest_edit(old: &[u64], new: &[u64]) -> Option<Vec<(usize, usize)>> {
    const LIMIT: usize = 512;
    let (n, m) = (old.len() as isize, new.len() as isize);
    let limit = LIMIT.min(old.len() + new.len()) as isize;
    let at = |diagonal: isize| (diagonal + limit + 1) as usize;
    let mut furthest = vec![0isize; 2 * limit as usize + 3];
    // For each number of edits how far each diagonal reached before.
    let mut history: Vec<Vec<isize>> = Vec::new();
    let down = |furthest: &dyn Fn(isize) -> isize, k: isize, d: isize| {
        k == -d || (k != d && furthest(k - 1) < furthest(k + 1))
    };
    for d in 0..=limit {
        history.push(furthest[at(-d - 1)..=at(d + 1)].to_vec());
        for k in (-d..=d).step_by(2) {
            let reach = |k: isize| furthest[at(k)];
            let mut x = if down(&reach, k, d) { reach(k + 1) } else { reach(k - 1) + 1 };
            while x < n && x - k < m && old[x as usize] == new[(x - k) as usize] {
                x += 1;
            }
            furthest[at(k)] = x;
            if x < n || x - k < m {
                continue;
            }
            let (mut x, mut y) = (n, m);
            let mut pairs = Vec::new();
            for d in (0..=d).rev() {
                let reach = |k: isize| history[d as usize][(k + d + 1) as usize];
                let k = x - y;
                let before = if down(&reach, k, d) { k + 1 } else { k - 1 };
                let (start_x, start_y) = if d == 0 { (0, 0) } else { (reach(before), reach(before) - before) };
                while x > start_x && y > start_y {
                    (x, y) = (x - 1, y - 1);
                    pairs.push((x as usize, y as usize));
                }
                (x, y) = (start_x, start_y);
            }
            pairs.reverse();
            return Some(pairs);
        }
    }
    None
}

/// Pairs of entries with equal tokens, both sides ascending.
fn common(old: &[u64], new: &[u64]) -> Vec<(usize, usize)> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let suffix = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old_rest[..old_rest.len() - suffix], &new_rest[..new_rest.len() - suffix]);
    let middle = shortest_edit(old_rest, new_rest).unwrap_or_else(|| anchors(old_rest, new_rest));
    let ends = (old.len() - suffix..old.len()).zip(new.len() - suffix..new.len());
    (0..prefix).map(|i| (i, i)).chain(middle.into_iter().map(|(i, j)| (i + prefix, j + prefix))).chain(ends).collect()
}

/// Brings two lists side by side: first what is equal in depth, between that
/// what looks alike, and what is left over in pairs from its end, since the last
/// row of a piece of code holds its result.
fn align(old: [&[u64]; 2], new: [&[u64]; 2]) -> Alignment {
    let ([old_deep, old_shallow], [new_deep, new_shallow]) = (old, new);
    let mut alignment = Vec::new();
    let (mut i, mut j) = (0, 0);
    let gap = |alignment: &mut Alignment, olds: Range<usize>, news: Range<usize>| {
        let pairs = common(&old_shallow[olds.clone()], &new_shallow[news.clone()]);
        let (mut i, mut j) = (olds.start, news.start);
        let ends = pairs.iter().map(|&(a, b)| (a + olds.start, b + news.start)).chain([(olds.end, news.end)]);
        for (a, b) in ends {
            let both = (a - i).min(b - j);
            alignment.extend((i..a - both).map(|i| (Some(i), None)));
            alignment.extend((j..b - both).map(|j| (None, Some(j))));
            alignment.extend((a - both..a).zip(b - both..b).map(|(i, j)| (Some(i), Some(j))));
            if (a, b) != (olds.end, news.end) {
                alignment.push((Some(a), Some(b)));
            }
            (i, j) = (a + 1, b + 1);
        }
    };
    for (a, b) in anchors(old_deep, new_deep) {
        gap(&mut alignment, i..a, j..b);
        alignment.push((Some(a), Some(b)));
        (i, j) = (a + 1, b + 1);
    }
    gap(&mut alignment, i..old_deep.len(), j..new_deep.len());
    alignment
}

/// One of two tapes that are compared.
struct Side<'a> {
    data: &'a TapeData,
    /// For each value a hash of the whole computation that leads to it; for
    /// inputs and parameters one that it shares with its partner in the other tape.
    deep: Vec<u64>,
    /// The hashes of the functions that rows call.
    functions: Vec<u128>,
}

impl<'a> Side<'a> {
    fn new(data: &'a TapeData) -> Side<'a> {
        let constants = (0..data.constants.len()).map(|index| mix(1, constant_bits(data, index as u32)));
        let mut contents = Contents::default();
        let functions = data.functions.iter().map(|function| contents.function(function)).collect();
        Side { data, deep: constants.collect(), functions }
    }

    /// The hash of the function that a row calls.
    fn function(&self, row: usize) -> Option<u128> {
        (self.data.op(row) == Op::Call).then(|| self.functions[self.data.function_number(row) as usize])
    }

    /// The names of inputs or parameters; by position where none were given.
    fn name_tokens(&self, values: Range<usize>) -> Vec<u64> {
        values.map(|value| mix_text(&self.data.variable_name(value).to_string())).collect()
    }

    /// Fills in the hashes of the rows once those of inputs and parameters are known.
    fn hash_rows(&mut self) {
        let mut of_head = 0;
        for row in 0..self.data.num_rows() {
            let (head, result) = self.data.head(row);
            if result == 0 {
                let operands = self.data.operands(head).iter().map(|&operand| self.deep[operand as usize]);
                let function = self.function(head).unwrap_or(0);
                let name = mix_text(self.data.op(head).info().name);
                of_head = operands.fold(mix(mix(name, function as u64), (function >> 64) as u64), mix);
            }
            self.deep.push(mix(of_head, result as u64));
        }
    }

    /// What the operands look like apart from which rows they are.
    fn look(&self, hash: u64, operands: &[u32]) -> u64 {
        let first_row = self.data.first_row();
        operands.iter().fold(mix(hash, operands.len() as u64), |hash, &operand| {
            mix(hash, if (operand as usize) < first_row { self.deep[operand as usize] } else { 0 })
        })
    }

    fn row_looks(&self) -> Vec<u64> {
        let look = |row: usize| {
            let name = match self.data.function(row) {
                Some(function) => mix_text(&function.to_string()),
                None => mix_text(self.data.op(row).info().name),
            };
            self.look(name, self.data.operands(row))
        };
        (0..self.data.num_rows()).map(look).collect()
    }

    fn guard_hash(guard: &Guard) -> u64 {
        mix(mix_text(guard.question().word()), mix_text(&guard.answer().to_string()))
    }

    fn guard_looks(&self) -> Vec<u64> {
        self.data.guards.iter().map(|guard| self.look(Self::guard_hash(guard), asked(guard))).collect()
    }

    fn guard_depths(&self) -> Vec<u64> {
        let deep = |guard: &Guard| {
            asked(guard).iter().fold(Self::guard_hash(guard), |hash, &operand| mix(hash, self.deep[operand as usize]))
        };
        self.data.guards.iter().map(deep).collect()
    }

    fn text(&self, part: Part, index: usize, digits: usize) -> String {
        let data = self.data;
        let render = |value: usize| data.value_name(value, Accent::None).render(Script::Unicode, digits);
        match part {
            Part::Input => {
                let value = data.first_input() + index;
                format!("{} = {}", render(value), data.variable_name(value))
            }
            Part::Parameter => format!("{} = parameter", render(data.first_param() + index)),
            Part::Row => {
                let formulas = Formulas::new();
                let formula = data.row_formula(index, &formulas).render(Script::Unicode, digits);
                format!("{} = {formula}", render(data.first_row() + index))
            }
            Part::Guard => data.guards[index].text(digits),
            Part::Output => format!("{} = {}", data.output_name(index), render(data.outputs[index] as usize)),
            Part::Constant => exact(data.constants[index]),
        }
    }

    fn location(&self, part: Part, index: usize) -> Option<SourceLocation> {
        match part {
            Part::Row => self.data.known_location(index),
            Part::Guard => Some(self.data.guards[index].location().clone()).filter(SourceLocation::is_known),
            _ => None,
        }
    }
}

/// The operands that a guard looks at.
fn asked(guard: &Guard) -> &[u32] {
    &guard.operands[..guard.question().operands()]
}

impl Tape {
    /// What changed from this tape to `other`, as a reviewer of a model change
    /// reads it: inputs, parameters, literals, rows, guards, outputs.
    ///
    /// A row whose number alone changed is no difference: operands are compared
    /// by the rows they stand for. Rows are brought side by side by what they
    /// compute, then by what they look like; for long tapes with more than a few
    /// hundred changes in one place the result is right, but may not be the shortest.
    ///
    /// Locations, escapes and the current values of the parameters are not compared.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let old = Tape::record(&[2.0, 4.0], |x| x[0].sin() * x[1] + 2.0)?;
    /// let new = Tape::record(&[2.0, 4.0], |x| x[0].sin() * x[1].sqrt() + 3.0)?;
    /// assert_eq!(old.diff(&new).to_string(), "\
    /// --- 2 inputs, 0 parameters, 3 rows, 0 guards, 1 output
    /// +++ 2 inputs, 0 parameters, 4 rows, 0 guards, 1 output
    /// @@ constants @@
    /// - 2
    /// + 3
    /// @@ rows @@
    ///   v₁ = sin(v₋₁)
    /// - v₂ = v₁·v₀
    /// - v₃ = v₂ + 2
    /// + v₂ = sqrt(v₀)
    /// + v₃ = v₁·v₂
    /// + v₄ = v₃ + 3
    /// ");
    /// assert!(old.diff(&old).is_empty());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// A row that calls another function than before is a difference; where both
    /// functions run tapes, what changed in these stands below the rows.
    pub fn diff(&self, other: &Tape) -> TapeDiff {
        self.diff_but(other, &mut HashSet::new())
    }

    /// Pairs of bodies that were compared already are left out.
    fn diff_but(&self, other: &Tape, compared: &mut HashSet<[*const TapeData; 2]>) -> TapeDiff {
        let mut sides = [Side::new(&self.data), Side::new(&other.data)];
        let mut diff = DiffWriter { differences: Vec::new(), text: String::new() };
        // For each value of the old tape its partner in the new one.
        let mut partners: Vec<Option<u32>> = vec![None; self.data.num_values()];

        let variables = |data: &TapeData, part| match part {
            Part::Input => data.first_input()..data.first_param(),
            _ => data.first_param()..data.first_row(),
        };
        for part in [Part::Input, Part::Parameter] {
            let ranges = [0, 1].map(|side: usize| variables(sides[side].data, part));
            let names = [0, 1].map(|side: usize| sides[side].name_tokens(ranges[side].clone()));
            let [old, new] = &names;
            let alignment = align([old, old], [new, new]);
            let mut hashes = names.each_ref().map(|names| vec![0; names.len()]);
            for (position, &(i, j)) in alignment.iter().enumerate() {
                let hash = mix(mix(2, part as u64), position as u64);
                for (side, index) in [i, j].into_iter().enumerate() {
                    if let Some(index) = index {
                        hashes[side][index] = hash;
                    }
                }
                if let (Some(i), Some(j)) = (i, j) {
                    partners[ranges[0].start + i] = Some((ranges[1].start + j) as u32);
                }
            }
            for (side, hashes) in sides.iter_mut().zip(hashes) {
                side.deep.extend(hashes);
            }
            // Unnamed inputs that moved keep their names, and named ones are who they are.
            let same = |i: usize, j: usize| names[0][i] == names[1][j] && given(&sides, part);
            diff.section(&sides, part, &alignment, same);
        }
        let literals = sides.each_ref().map(|side| side.deep[..side.data.constants.len()].to_vec());
        let [old, new] = literals.each_ref().map(|tokens| tokens.iter().copied().collect::<HashSet<u64>>());
        let removed = (0..literals[0].len()).filter(|&i| !new.contains(&literals[0][i])).map(|i| (Some(i), None));
        let added = (0..literals[1].len()).filter(|&j| !old.contains(&literals[1][j])).map(|j| (None, Some(j)));
        let alignment: Alignment = removed.chain(added).collect();
        diff.section(&sides, Part::Constant, &alignment, |_, _| true);

        sides.iter_mut().for_each(Side::hash_rows);
        let first_rows = sides.each_ref().map(|side| side.data.first_row());
        let looks = sides.each_ref().map(Side::row_looks);
        let alignment =
            align([&sides[0].deep[first_rows[0]..], &looks[0]], [&sides[1].deep[first_rows[1]..], &looks[1]]);
        for &(i, j) in &alignment {
            if let (Some(i), Some(j)) = (i, j) {
                partners[first_rows[0] + i] = Some((first_rows[1] + j) as u32);
            }
        }
        let [old, new] = sides.each_ref().map(|side| side.data);
        let same_operand =
            |&a: &u32, &b: &u32| match ((a as usize) < old.first_input(), (b as usize) < new.first_input()) {
                (true, true) => constant_bits(old, a) == constant_bits(new, b),
                (false, false) => partners[a as usize] == Some(b),
                _ => false,
            };
        let same_operands =
            |a: &[u32], b: &[u32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_operand(a, b));
        diff.section(&sides, Part::Row, &alignment, |i, j| {
            old.op(i) == new.op(j)
                && sides[0].function(i) == sides[1].function(j)
                && same_operands(old.operands(i), new.operands(j))
        });
        for &(i, j) in &alignment {
            let (Some(i), Some(j)) = (i, j) else { continue };
            let (Some(old_function), Some(new_function)) = (old.function(i), new.function(j)) else { continue };
            let (Some(before), Some(after)) = (old_function.body(), new_function.body()) else { continue };
            if sides[0].function(i) == sides[1].function(j)
                || !compared.insert([Arc::as_ptr(&before.data), Arc::as_ptr(&after.data)])
            {
                continue;
            }
            let of_bodies = before.diff_but(after, compared);
            if !of_bodies.is_empty() {
                let row = new.value_name(new.first_row() + j, Accent::None);
                let _ = writeln!(diff.text, "@@ {}, called by {row} @@", new_function.call_name().name);
                of_bodies.text.lines().for_each(|line| diff.text += &format!("  {line}\n"));
            }
        }

        let looks = sides.each_ref().map(Side::guard_looks);
        let depths = sides.each_ref().map(Side::guard_depths);
        let alignment = align([&depths[0], &looks[0]], [&depths[1], &looks[1]]);
        diff.section(&sides, Part::Guard, &alignment, |i, j| {
            let (a, b) = (&old.guards[i], &new.guards[j]);
            a.question() == b.question() && a.answer() == b.answer() && same_operands(asked(a), asked(b))
        });

        let longer = old.outputs.len().max(new.outputs.len());
        let within = |index: usize, data: &TapeData| (index < data.outputs.len()).then_some(index);
        let alignment: Alignment = (0..longer).map(|i| (within(i, old), within(i, new))).collect();
        diff.section(&sides, Part::Output, &alignment, |i, j| same_operand(&old.outputs[i], &new.outputs[j]));
        diff.finish(&sides)
    }
}

/// Whether both tapes have names for their inputs or parameters, or neither has.
fn given(sides: &[Side<'_>; 2], part: Part) -> bool {
    let [old, new] = sides.each_ref().map(|side| match part {
        Part::Input => side.data.input_names.is_empty(),
        _ => side.data.param_names.is_empty(),
    });
    old == new
}

struct DiffWriter {
    differences: Vec<Difference>,
    text: String,
}

impl DiffWriter {
    /// Unchanged lines that are shown on either side of a change.
    const CONTEXT: usize = 2;

    /// Notes what differs in one part; `same` decides on entries that stand side by side.
    fn section(
        &mut self,
        sides: &[Side<'_>; 2],
        part: Part,
        alignment: &Alignment,
        same: impl Fn(usize, usize) -> bool,
    ) {
        let differs = |&(i, j): &(Option<usize>, Option<usize>)| match (i, j) {
            (Some(i), Some(j)) => !same(i, j),
            _ => true,
        };
        let changed: Vec<bool> = alignment.iter().map(differs).collect();
        let Some(mut at) = changed.iter().position(|&changed| changed) else { return };
        let _ = writeln!(self.text, "@@ {part}s @@");
        let mut shown = 0;
        while at < changed.len() {
            let end = at + changed[at..].iter().take_while(|&&changed| changed).count();
            let start = shown.max(at.saturating_sub(Self::CONTEXT));
            if start > shown {
                self.text += "  …\n";
            }
            self.context(sides, part, &alignment[start..at]);
            self.change(sides, part, &alignment[at..end]);
            let next = changed[end..].iter().position(|&changed| changed).map_or(changed.len(), |next| end + next);
            shown = next.min(end + Self::CONTEXT);
            self.context(sides, part, &alignment[end..shown]);
            at = next;
        }
        if shown < changed.len() {
            self.text += "  …\n";
        }
    }

    fn context(&mut self, sides: &[Side<'_>; 2], part: Part, lines: &[(Option<usize>, Option<usize>)]) {
        for new in lines.iter().filter_map(|&(_, new)| new) {
            let _ = writeln!(self.text, "  {}", sides[1].text(part, new, DIGITS));
        }
    }

    fn change(&mut self, sides: &[Side<'_>; 2], part: Part, lines: &[(Option<usize>, Option<usize>)]) {
        let first = self.differences.len();
        for &(old, new) in lines {
            let texts = |digits| {
                [old, new]
                    .into_iter()
                    .zip(sides)
                    .map(|(index, side)| index.map(|index| side.text(part, index, digits)))
                    .collect::<SmallVec<[_; 2]>>()
            };
            let mut shown = texts(DIGITS);
            if shown[0] == shown[1] {
                shown = texts(ALL_DIGITS);
            }
            if let (true, Some(text)) = (shown[0] == shown[1], &mut shown[1]) {
                let functions = [(0, old), (1, new)].map(|(side, index): (usize, Option<usize>)| {
                    index.filter(|_| part == Part::Row).and_then(|index| sides[side].function(index))
                });
                let iterations = [(0, old), (1, new)].map(|(side, index): (usize, Option<usize>)| {
                    let data = sides[side].data;
                    let row = index.filter(|_| part == Part::Row).map(|index| data.head(index).0);
                    let function = row.and_then(|row| data.function(row));
                    function.map_or(String::new(), |function| function.iterations_text(Script::Unicode))
                });
                *text += &match functions[0] == functions[1] {
                    true => " (a name in it now means another value)".to_owned(),
                    false if iterations[0] == iterations[1] => " (it now calls another function)".to_owned(),
                    false => {
                        let [old, new] = iterations.map(|text| if text.is_empty() { "once".to_owned() } else { text });
                        format!(" (it ran {old}; now {new})")
                    }
                };
            }
            let location =
                |side: usize, index: Option<usize>| index.and_then(|index| sides[side].location(part, index));
            let [old_text, new_text] = [shown[0].take(), shown[1].take()];
            self.differences.push(Difference {
                part,
                old: old_text,
                new: new_text,
                old_location: location(0, old),
                new_location: location(1, new),
            });
        }
        let changes = &self.differences[first..];
        changes.iter().filter_map(|change| change.old.as_ref()).for_each(|old| self.text += &format!("- {old}\n"));
        changes.iter().filter_map(|change| change.new.as_ref()).for_each(|new| self.text += &format!("+ {new}\n"));
    }

    fn finish(self, sides: &[Side<'_>; 2]) -> TapeDiff {
        let [old, new] = sides.each_ref().map(|side| {
            let counts = [
                plural(side.data.num_inputs, "input"),
                plural(side.data.num_params, "parameter"),
                plural(side.data.num_rows(), "row"),
                plural(side.data.guards.len(), "guard"),
                plural(side.data.outputs.len(), "output"),
            ];
            counts.join(", ")
        });
        let text = match self.differences.is_empty() {
            true => "no differences\n".to_owned(),
            false => format!("--- {old}\n+++ {new}\n{}", self.text),
        };
        TapeDiff { differences: self.differences, text }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_shortest_edit_is_short() {
        assert_eq!(shortest_edit(&[1, 2, 3], &[1, 2, 3]), Some(vec![(0, 0), (1, 1), (2, 2)]));
        assert_eq!(shortest_edit(&[], &[1]), Some(vec![]));
        // The example of Myers' paper: abcabba and cbabac have four letters in common.
        let pairs = shortest_edit(&[1, 2, 3, 1, 2, 2, 1], &[3, 2, 1, 2, 1, 3]).unwrap();
        assert_eq!(pairs.len(), 4);
        assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }

    #[test]
    fn anchors_ascend_on_both_sides() {
        assert_eq!(anchors(&[1, 2, 3, 4], &[9, 2, 1, 3, 4]), [(1, 1), (2, 3), (3, 4)]);
        assert_eq!(anchors(&[5, 5], &[5, 5, 5]), [(0, 0), (1, 1)]);
    }
}
