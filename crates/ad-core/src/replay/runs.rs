//! Runs: neighbouring rows of one kind whose operands lie at equal distances, as
//! the inner loops of a factorisation record them.
//!
//! The scalar engine runs such rows as a loop over slices, which saves reading a
//! row and choosing what it does, and lets the compiler use vectors. Only loops
//! that keep the bits are runs: no row reads a result of another one, and no two
//! active operands share a slot, so that each adjoint has its contributions from
//! one operand alone, and they are added in the order of the rows.
//!
//! As in lanes, and unlike in the sweep row by row, a row whose adjoint is exactly
//! 0 is not passed over; see `lanes.rs` for why that keeps the bits.

use crate::ops::{Fold, Operation, ProgramVisitor};
use crate::replay::program::Row;

/// Rows of a program that run as one loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first of them.
    pub start: u32,
    pub len: u32,
    /// Which factor has the same slot in every row: 1 the first operand, 2 the
    /// second, 0 none. The slots of the other operands follow each other.
    fixed: u8,
}

/// The rows from which on a loop is faster than they are one by one.
const SHORTEST: usize = 4;

/// Of rows that can be in a run the number of operands and which of them are
/// active, a bit each.
struct Kind(Option<(usize, u8)>);

impl ProgramVisitor for Kind {
    type Row = ();
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, (): ()) {}
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, (): ()) {
        self.0 = Some((2, ACTIVE));
    }
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, (): ()) {
        self.0 = Some((3, ACTIVE));
    }
    fn kept<O: Operation<1, 1>>(&mut self, (): ()) {}
    fn fold<O: Fold>(&mut self, (): ()) {}
    fn chain<O: Fold, const INITIAL: bool>(&mut self, (): ()) {}
}

impl Run {
    /// The runs among the rows of a program for reverse sweeps, in their order.
    pub fn find(rows: &[Row]) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut start = 0;
        while start + SHORTEST <= rows.len() {
            match Run::at(rows, start) {
                Some(run) => {
                    start += run.len as usize;
                    runs.push(run);
                }
                None => start += 1,
            }
        }
        runs.shrink_to_fit();
        runs
    }

    /// The run that starts with row `start`, if there is one.
    fn at(rows: &[Row], start: usize) -> Option<Run> {
        let [first, second, ..] = &rows[start..] else { return None };
        if second.code != first.code {
            return None;
        }
        let mut kind = Kind(None);
        first.code.visit(&mut kind, ());
        let (operands, active) = kind.0?;
        let mut fixed = 0;
        for i in 0..operands {
            match second.x[i].wrapping_sub(first.x[i]) {
                0 => fixed |= 1 << i,
                1 => {}
                _ => return None,
            }
        }
        if fixed > 2 {
            return None;
        }
        let is_fixed = |i: usize| fixed >> i & 1 == 1;
        let mut longest = u32::MAX;
        for i in 0..operands {
            if !is_fixed(i) {
                longest = longest.min(first.result - first.x[i]);
            }
            for j in (0..i).filter(|j| active >> i & active >> j & 1 == 1) {
                let (low, high) = if first.x[i] < first.x[j] { (i, j) } else { (j, i) };
                match first.x[high] - first.x[low] {
                    0 => return None,
                    _ if is_fixed(low) => {}
                    distance => longest = longest.min(distance),
                }
            }
        }
        let follows = |(back, row): (u32, &Row)| {
            row.code == first.code
                && row.result == first.result + back
                && (0..operands).all(|i| row.x[i] == first.x[i] + if is_fixed(i) { 0 } else { back })
        };
        let len = (0..longest).zip(&rows[start..]).take_while(|&row| follows(row)).count();
        (len >= SHORTEST).then_some(Run { start: start as u32, len: len as u32, fixed })
    }
}

/// Calls a function with the fixed operand known when it is compiled.
macro_rules! with_fixed {
    ($fixed:expr, $function:ident::<$($generic:tt),*>($($argument:expr),*)) => {
        match $fixed {
            0 => $function::<$($generic,)* 0>($($argument),*),
            1 => $function::<$($generic,)* 1>($($argument),*),
            _ => $function::<$($generic,)* 2>($($argument),*),
        }
    };
}

/// The numbers of an operand: one a row, or one for all rows if it is fixed.
#[inline(always)]
fn window(values: &[f64], first: u32, len: usize, fixed: bool) -> &[f64] {
    &values[first as usize..][..if fixed { 1 } else { len }]
}

/// Where in its window row j finds its operand.
#[inline(always)]
fn of(j: usize, fixed: bool) -> usize {
    if fixed { 0 } else { j }
}

#[inline(never)]
fn operator_values<O: Operation<2, 1>, const FIXED: u8>(first: &Row, len: usize, values: &mut [f64]) {
    let (values, results) = values.split_at_mut(first.result as usize);
    let a = window(values, first.x[0], len, FIXED == 1);
    let b = window(values, first.x[1], len, FIXED == 2);
    for (j, result) in results[..len].iter_mut().enumerate() {
        [*result] = O::value([a[of(j, FIXED == 1)], b[of(j, FIXED == 2)]]);
    }
}

#[inline(never)]
fn fused_values<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const FIXED: u8>(
    first: &Row,
    len: usize,
    values: &mut [f64],
) {
    let (values, results) = values.split_at_mut(first.result as usize);
    let a = window(values, first.x[0], len, FIXED == 1);
    let b = window(values, first.x[1], len, FIXED == 2);
    let c = window(values, first.x[2], len, false);
    for (j, result) in results[..len].iter_mut().enumerate() {
        let [m] = I::value([a[of(j, FIXED == 1)], b[of(j, FIXED == 2)]]);
        [*result] = O::value(if AT == 0 { [m, c[j]] } else { [c[j], m] });
    }
}

/// The values of a run.
pub(crate) struct Values<'a> {
    pub run: Run,
    pub values: &'a mut [f64],
}

/// What is done for a row that [`Kind`] admits to no run.
fn no_run() -> ! {
    unreachable!("only operators and pairs of them make runs")
}

impl<'a> ProgramVisitor for Values<'a> {
    /// The first row of the run.
    type Row = &'a Row;

    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, _: &'a Row) {
        no_run();
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, first: &'a Row) {
        with_fixed!(self.run.fixed, operator_values::<O>(first, self.run.len as usize, self.values));
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, first: &'a Row) {
        with_fixed!(self.run.fixed, fused_values::<I, O, AT>(first, self.run.len as usize, self.values));
    }

    fn kept<O: Operation<1, 1>>(&mut self, _: &'a Row) {
        no_run();
    }

    fn fold<O: Fold>(&mut self, _: &'a Row) {
        no_run();
    }

    fn chain<O: Fold, const INITIAL: bool>(&mut self, _: &'a Row) {
        no_run();
    }
}

/// The slots of an operand's adjoints; none if it is not active, so that it may
/// share its slot with another one.
#[inline(always)]
fn slots(first: u32, len: usize, active: bool, fixed: bool) -> std::ops::Range<usize> {
    let start = first as usize;
    match (active, fixed) {
        (false, _) => 0..0,
        (true, true) => start..start + 1,
        (true, false) => start..start + len,
    }
}

const SHARED: &str = "active operands of a run share no slot";

#[inline(never)]
fn operator_adjoints<O: Operation<2, 1>, const ACTIVE: u8, const FIXED: u8>(
    first: &Row,
    len: usize,
    values: &[f64],
    adjoints: &mut [f64],
) {
    let (values, results) = values.split_at(first.result as usize);
    let a = window(values, first.x[0], len, FIXED == 1);
    let b = window(values, first.x[1], len, FIXED == 2);
    let (operands, adjoints) = adjoints.split_at_mut(first.result as usize);
    let [of_a, of_b] = operands
        .get_disjoint_mut([
            slots(first.x[0], len, ACTIVE & 1 != 0, FIXED == 1),
            slots(first.x[1], len, ACTIVE & 2 != 0, FIXED == 2),
        ])
        .expect(SHARED);
    let (results, adjoints) = (&results[..len], &adjoints[..len]);
    let (mut sum_a, mut sum_b) = (0.0, 0.0);
    if ACTIVE & 1 != 0 && FIXED == 1 {
        sum_a = of_a[0];
    }
    if ACTIVE & 2 != 0 && FIXED == 2 {
        sum_b = of_b[0];
    }
    for j in (0..len).rev() {
        let x = [a[of(j, FIXED == 1)], b[of(j, FIXED == 2)]];
        let v = [results[j]];
        if ACTIVE & 1 != 0 {
            let contribution = O::partial(0, 0, x, v) * adjoints[j];
            *(if FIXED == 1 { &mut sum_a } else { &mut of_a[j] }) += contribution;
        }
        if ACTIVE & 2 != 0 {
            let contribution = O::partial(0, 1, x, v) * adjoints[j];
            *(if FIXED == 2 { &mut sum_b } else { &mut of_b[j] }) += contribution;
        }
    }
    if ACTIVE & 1 != 0 && FIXED == 1 {
        of_a[0] = sum_a;
    }
    if ACTIVE & 2 != 0 && FIXED == 2 {
        of_b[0] = sum_b;
    }
}

#[inline(never)]
fn fused_adjoints<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8, const FIXED: u8>(
    first: &Row,
    len: usize,
    values: &[f64],
    adjoints: &mut [f64],
) {
    let (values, results) = values.split_at(first.result as usize);
    let a = window(values, first.x[0], len, FIXED == 1);
    let b = window(values, first.x[1], len, FIXED == 2);
    let c = window(values, first.x[2], len, false);
    let (operands, adjoints) = adjoints.split_at_mut(first.result as usize);
    let [of_a, of_b, of_c] = operands
        .get_disjoint_mut([
            slots(first.x[0], len, ACTIVE & 1 != 0, FIXED == 1),
            slots(first.x[1], len, ACTIVE & 2 != 0, FIXED == 2),
            slots(first.x[2], len, ACTIVE & 4 != 0, false),
        ])
        .expect(SHARED);
    let (results, adjoints) = (&results[..len], &adjoints[..len]);
    let (mut sum_a, mut sum_b) = (0.0, 0.0);
    if ACTIVE & 1 != 0 && FIXED == 1 {
        sum_a = of_a[0];
    }
    if ACTIVE & 2 != 0 && FIXED == 2 {
        sum_b = of_b[0];
    }
    for j in (0..len).rev() {
        let x = [a[of(j, FIXED == 1)], b[of(j, FIXED == 2)]];
        let m = I::value(x);
        let outer = if AT == 0 { [m[0], c[j]] } else { [c[j], m[0]] };
        let v = [results[j]];
        let adjoint = O::partial(0, AT, outer, v) * adjoints[j];
        if ACTIVE & 4 != 0 {
            of_c[j] += O::partial(0, 1 - AT, outer, v) * adjoints[j];
        }
        if ACTIVE & 1 != 0 {
            let contribution = I::partial(0, 0, x, m) * adjoint;
            *(if FIXED == 1 { &mut sum_a } else { &mut of_a[j] }) += contribution;
        }
        if ACTIVE & 2 != 0 {
            let contribution = I::partial(0, 1, x, m) * adjoint;
            *(if FIXED == 2 { &mut sum_b } else { &mut of_b[j] }) += contribution;
        }
    }
    if ACTIVE & 1 != 0 && FIXED == 1 {
        of_a[0] = sum_a;
    }
    if ACTIVE & 2 != 0 && FIXED == 2 {
        of_b[0] = sum_b;
    }
}

/// The adjoints of a run.
pub(crate) struct Adjoints<'a> {
    pub run: Run,
    pub values: &'a [f64],
    pub adjoints: &'a mut [f64],
}

impl<'a> ProgramVisitor for Adjoints<'a> {
    /// The first row of the run.
    type Row = &'a Row;

    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, _: &'a Row) {
        no_run();
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, first: &'a Row) {
        with_fixed!(
            self.run.fixed,
            operator_adjoints::<O, ACTIVE>(first, self.run.len as usize, self.values, self.adjoints)
        );
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, first: &'a Row) {
        with_fixed!(
            self.run.fixed,
            fused_adjoints::<I, O, AT, ACTIVE>(first, self.run.len as usize, self.values, self.adjoints)
        );
    }

    fn kept<O: Operation<1, 1>>(&mut self, _: &'a Row) {
        no_run();
    }

    fn fold<O: Fold>(&mut self, _: &'a Row) {
        no_run();
    }

    fn chain<O: Fold, const INITIAL: bool>(&mut self, _: &'a Row) {
        no_run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Code, Op};

    fn rows(op: Op, of: &[([u32; 2], u32)]) -> Vec<Row> {
        let code = Code::operator(op, 0b11).expect("operators have a code");
        of.iter().map(|&([a, b], result)| Row { code, x: [a, b, 0], result }).collect()
    }

    /// Where the runs start, and how long they are.
    fn found_in(rows: &[Row]) -> Vec<(u32, u32)> {
        Run::find(rows).iter().map(|run| (run.start, run.len)).collect()
    }

    fn found(of: &[([u32; 2], u32)]) -> Vec<(u32, u32)> {
        found_in(&rows(Op::Mul, of))
    }

    #[test]
    fn rows_at_equal_distances_are_a_run() {
        let stepping: Vec<_> = (0..6).map(|j| ([j, 10 + j], 20 + j)).collect();
        assert_eq!(found(&stepping), [(0, 6)]);
        let fixed: Vec<_> = (0..6).map(|j| ([3, 10 + j], 20 + j)).collect();
        assert_eq!(found(&fixed), [(0, 6)]);
        assert_eq!(found(&stepping[..3]), [], "too short");
        let other_distance: Vec<_> = (0..6).map(|j| ([2 * j, 13], 20 + j)).collect();
        assert_eq!(found(&other_distance), []);
    }

    #[test]
    fn rows_of_another_kind_or_with_results_elsewhere_are_not_in_it() {
        let of: Vec<_> = (0..10).map(|j| ([j, 10 + j], 20 + j)).collect();
        let (before, after) = of.split_at(5);
        let of_two_kinds = [rows(Op::Mul, before), rows(Op::Add, after)].concat();
        assert_eq!(found_in(&of_two_kinds), [(0, 5), (5, 5)]);
        let fused = Code::fused(Op::Mul, Op::Add, 0, 0b111).expect("a product in a sum has a code");
        let pairs: Vec<Row> = (0..6).map(|j| Row { code: fused, x: [j, 10 + j, 20 + j], result: 30 + j }).collect();
        assert_eq!(found_in(&pairs), [(0, 6)]);
        let with_a_gap: Vec<_> = (0..10).map(|j| ([j, 10 + j], 20 + j + j / 6)).collect();
        assert_eq!(found(&with_a_gap), [(0, 6), (6, 4)]);
    }

    #[test]
    fn rows_that_read_a_result_of_the_run_are_not_in_it() {
        let recurrence: Vec<_> = (0..6).map(|j| ([3, 19 + j], 20 + j)).collect();
        assert_eq!(found(&recurrence), []);
        let after_five: Vec<_> = (0..8).map(|j| ([3, 15 + j], 20 + j)).collect();
        assert_eq!(found(&after_five), [(0, 5)]);
    }

    #[test]
    fn rows_whose_active_operands_share_a_slot_are_not_in_one_run() {
        let squares: Vec<_> = (0..6).map(|j| ([j, j], 20 + j)).collect();
        assert_eq!(found(&squares), []);
        let shifted: Vec<_> = (0..8).map(|j| ([j, 4 + j], 20 + j)).collect();
        assert_eq!(found(&shifted), [(0, 4), (4, 4)]);
        let into_fixed: Vec<_> = (0..8).map(|j| ([j, 5], 20 + j)).collect();
        assert_eq!(found(&into_fixed), [(0, 5)]);
        let away_from_fixed: Vec<_> = (0..6).map(|j| ([9, 10 + j], 20 + j)).collect();
        assert_eq!(found(&away_from_fixed), [(0, 6)]);
        let fused = Code::fused(Op::Mul, Op::Add, 0, 0b111).expect("a product in a sum has a code");
        let of_both: Vec<Row> = (0..8).map(|j| Row { code: fused, x: [j, 10 + j, 14 + j], result: 30 + j }).collect();
        assert_eq!(found_in(&of_both), [(0, 4), (4, 4)]);
        // A passive operand has no adjoint to share.
        let code = Code::operator(Op::Mul, 0b10).expect("products have a code");
        let passive: Vec<Row> = (0..8).map(|j| Row { code, x: [j, 4 + j, 0], result: 20 + j }).collect();
        assert_eq!(found_in(&passive), [(0, 8)]);
    }
}
