//! The lane engine: runs a program at many points side by side.
//!
//! A slot holds one or more blocks of lanes. What is the same in every lane, a
//! constant or an input that all samples share, stays a single number that is
//! spread where it is read. Each lane has the bits of the scalar engine by plain
//! IEEE, with one exception: that one passes over a row whose adjoint is exactly
//! 0, and here 0 is multiplied and added. This gives other bits only where a
//! partial is infinite or NaN, and then it gives a NaN, upon which the callers
//! repeat the lane with the scalar engine.
//!
//! The loop over the rows is ordinary code; what a row does is a function of its
//! own, compiled for each level of vector instructions and chosen by the row.
//! Inside these functions there are plain loops over indices: functions of std
//! that take a closure are not always inlined, and what they call would not be
//! compiled for the level.

#![allow(clippy::needless_range_loop, reason = "indices are what the vectoriser follows best")]

use std::cell::Cell;

use crate::lanes::Lanes;
use crate::ops::{Fold, Operation, ProgramVisitor};
use crate::replay::engine::operands;
use crate::replay::program::{Program, Row, Weights};
use crate::replay::simd::SimdLevel;

/// The lanes of a block: two of the widest registers, so that two operations
/// are under way at a time.
pub(crate) const WIDTH: usize = 16;
/// The lanes whose sums over samples are apart.
pub(crate) const STREAMS: usize = 8;
/// Blocks at the end of the values, for operands that are the same in every lane.
const SPREAD: usize = 4;

pub(crate) type Block = Lanes<WIDTH>;
pub(crate) type Stream = Lanes<STREAMS>;

const ZERO: Block = Lanes([0.0; WIDTH]);

/// Where the operands of a program are in lanes.
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub level: SimdLevel,
    pub program: &'a Program,
    /// The blocks of a slot.
    pub blocks: usize,
    /// Passive slots below this are the same in every lane.
    pub uniform_passive: usize,
    /// So many inputs, all or none, are the same in every lane.
    pub uniform_inputs: usize,
}

/// Where the blocks of an operand are: one behind the other, or one for all.
#[derive(Clone, Copy, Default)]
struct Place {
    first: usize,
    step: usize,
}

impl Layout<'_> {
    /// The slots whose values are in lanes.
    fn value_slots(&self) -> usize {
        self.program.num_slots - self.uniform_passive - self.uniform_inputs
    }

    /// The blocks that the values of a program take.
    pub fn value_blocks(&self) -> usize {
        self.value_slots() * self.blocks + SPREAD
    }

    /// The blocks that the adjoints of a program take, or the tangents in one direction.
    pub fn derivative_blocks(&self) -> usize {
        (self.program.num_slots - self.program.first_input) * self.blocks
    }

    /// The first block of the values of a slot that is not the same in every lane.
    #[inline(always)]
    pub fn value(&self, slot: u32) -> usize {
        let slot = slot as usize;
        let uniform = if slot < self.program.first_input { 0 } else { self.uniform_inputs };
        (slot - self.uniform_passive - uniform) * self.blocks
    }

    /// The first block of the adjoints, or the first direction's tangents, of an active slot.
    #[inline(always)]
    pub fn derivative(&self, slot: u32) -> usize {
        (slot as usize - self.program.first_input) * self.blocks
    }

    #[inline(always)]
    pub fn is_uniform(&self, slot: u32) -> bool {
        let slot = slot as usize;
        slot < self.uniform_passive || slot.wrapping_sub(self.program.first_input) < self.uniform_inputs
    }

    #[inline(always)]
    fn is_active(&self, slot: u32) -> bool {
        slot as usize >= self.program.first_input
    }

    /// Block `block` of the values of a slot.
    #[inline(always)]
    pub fn fetch(&self, scalars: &[f64], values: &[Block], slot: u32, block: usize) -> Block {
        if self.is_uniform(slot) { Lanes([scalars[slot as usize]; WIDTH]) } else { values[self.value(slot) + block] }
    }

    /// Where the operands are, those that are the same in every lane spread.
    #[inline(always)]
    fn places<const N: usize>(&self, scalars: &[f64], values: &mut [Block], slots: [u32; N]) -> [Place; N] {
        let mut places = [Place::default(); N];
        for i in 0..N {
            places[i] = if self.is_uniform(slots[i]) {
                let first = self.value_slots() * self.blocks + i;
                values[first] = Lanes([scalars[slots[i] as usize]; WIDTH]);
                Place { first, step: 0 }
            } else {
                Place { first: self.value(slots[i]), step: 1 }
            };
        }
        places
    }

    /// Which operands are active, and the first block of each.
    #[inline(always)]
    fn targets<const N: usize>(&self, slots: [u32; N]) -> [Option<usize>; N] {
        slots.map(|slot| self.is_active(slot).then(|| self.derivative(slot)))
    }
}

/// Runs the body of a function compiled for a level, if it gains from that.
macro_rules! at_level {
    ($vectorized:expr, $level:expr, $body:block) => {
        if $vectorized {
            $level.run(
                #[inline(always)]
                || $body,
            )
        } else {
            $body
        }
    };
}

/// The lanes that eight samples or points take in the slots of their numbers.
#[derive(Clone, Copy)]
pub(crate) struct Eighth {
    /// The first block of the first slot.
    pub first: usize,
    /// Which eight lanes of a slot.
    pub eighth: usize,
}

/// Stores numbers that are side by side in eights already, one eight a slot.
#[inline(never)]
pub(crate) fn store_packed(layout: Layout<'_>, values: &mut [Block], to: Eighth, packed: &[Stream]) {
    layout.level.run(
        #[inline(always)]
        || {
            let (block, half) = (to.eighth / 2, to.eighth % 2);
            for (slot, stream) in values[to.first..].chunks_exact_mut(layout.blocks).zip(packed) {
                slot[block].0.as_chunks_mut().0[half] = stream.0;
            }
        },
    );
}

/// Takes the adjoints of consecutive slots into rows of a matrix, one row a lane:
/// `rows` are those of the lanes from the first on.
#[inline(never)]
pub(crate) fn take_rows<'a>(layout: Layout<'_>, adjoints: &mut [Block], mut rows: impl Iterator<Item = &'a mut [f64]>) {
    for eighth in 0..layout.blocks * WIDTH / STREAMS {
        let (block, half) = (eighth / 2, eighth % 2);
        let slots = adjoints.chunks_exact(layout.blocks).map(|slot| slot[block].0.as_chunks::<STREAMS>().0[half]);
        // Eight rows at a time, so that a cache line is read once.
        match std::array::from_fn(|_| rows.next()) {
            [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f), Some(g), Some(h)] => {
                let len = a.len();
                let (b, c, d, e) = (&mut b[..len], &mut c[..len], &mut d[..len], &mut e[..len]);
                let (f, g, h) = (&mut f[..len], &mut g[..len], &mut h[..len]);
                for (j, slot) in slots.take(len).enumerate() {
                    [a[j], b[j], c[j], d[j], e[j], f[j], g[j], h[j]] = slot;
                }
            }
            some => {
                for (lane, row) in some.into_iter().flatten().enumerate() {
                    for (slot, entry) in slots.clone().zip(row) {
                        *entry = slot[lane];
                    }
                }
            }
        }
    }
    adjoints.fill(ZERO);
}

/// Stores eight rows of numbers, one number of each a slot.
#[inline(never)]
pub(crate) fn store_rows(layout: Layout<'_>, values: &mut [Block], to: Eighth, rows: [&[f64]; STREAMS]) {
    layout.level.run(
        #[inline(always)]
        || {
            let (block, half) = (to.eighth / 2, to.eighth % 2);
            let [a, b, c, d, e, f, g, h] = rows;
            let len = a.len();
            // The lengths known to be equal, one check does for all.
            let (b, c, d, e, f, g, h) = (&b[..len], &c[..len], &d[..len], &e[..len], &f[..len], &g[..len], &h[..len]);
            for (j, slot) in values[to.first..].chunks_exact_mut(layout.blocks).take(len).enumerate() {
                slot[block].0.as_chunks_mut().0[half] = [a[j], b[j], c[j], d[j], e[j], f[j], g[j], h[j]];
            }
        },
    );
}

/// One block of each operand.
#[inline(always)]
fn load<const N: usize>(values: &[Block], places: &[Place; N], block: usize) -> [Block; N] {
    let mut x = [ZERO; N];
    for i in 0..N {
        x[i] = values[places[i].first + block * places[i].step];
    }
    x
}

/// The operands of a term, which has two at most.
#[inline(always)]
fn load_term<O: Fold>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &[Block],
    term: &[u32],
    block: usize,
) -> [Block; 2] {
    let first = layout.fetch(scalars, values, term[0], block);
    if O::STRIDE == 1 { [first; 2] } else { [first, layout.fetch(scalars, values, term[1], block)] }
}

// Values.

struct Values<'a> {
    layout: Layout<'a>,
    scalars: &'a [f64],
    values: &'a mut [Block],
}

#[inline(never)]
fn operation_values<O: Operation<N, M>, const N: usize, const M: usize>(
    layout: &Layout<'_>,
    values: &mut [Block],
    x: &[Place; N],
    result: usize,
) {
    let blocks = layout.blocks;
    at_level!(O::VECTORIZED, layout.level, {
        for block in 0..blocks {
            let v = O::values(load(values, x, block));
            for j in 0..M {
                values[result + j * blocks + block] = v[j];
            }
        }
    });
}

#[inline(never)]
fn kept_values<O: Operation<1, 1>>(layout: &Layout<'_>, values: &mut [Block], x: &[Place; 1], result: usize) {
    at_level!(O::VECTORIZED, layout.level, {
        for block in 0..layout.blocks {
            let ([v], [[partial]]) = O::linearize(load(values, x, block));
            values[result + block] = v;
            values[result + layout.blocks + block] = partial;
        }
    });
}

#[inline(never)]
fn fused_values<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize>(
    layout: &Layout<'_>,
    values: &mut [Block],
    x: &[Place; 3],
    result: usize,
) {
    at_level!(true, layout.level, {
        for block in 0..layout.blocks {
            let [a, b, c] = load(values, x, block);
            let [m] = I::values([a, b]);
            let [v] = O::values(if AT == 0 { [m, c] } else { [c, m] });
            values[result + block] = v;
        }
    });
}

/// A left fold; −0 adds to any number without changing it.
#[inline(never)]
fn sum_values<O: Fold>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &mut [Block],
    initial: Option<u32>,
    terms: &[u32],
    weights: Weights,
    result: usize,
) {
    at_level!(true, layout.level, {
        let weights = if layout.uniform_inputs > 0 { weights } else { Weights::Neither };
        match weights {
            Weights::First => weighted_values::<O, 0>(layout, scalars, values, initial, terms, result),
            Weights::Second => weighted_values::<O, 1>(layout, scalars, values, initial, terms, result),
            Weights::Neither => {
                for block in 0..layout.blocks {
                    let mut sum = initial_value(layout, scalars, values, initial, block);
                    for term in terms.chunks_exact(O::STRIDE) {
                        let x = load_term::<O>(layout, scalars, values, term, block);
                        sum += O::term(&x[..O::STRIDE]);
                    }
                    values[result + block] = sum;
                }
            }
        }
    });
}

#[inline(always)]
fn initial_value(layout: &Layout<'_>, scalars: &[f64], values: &[Block], initial: Option<u32>, block: usize) -> Block {
    match initial {
        Some(initial) => layout.fetch(scalars, values, initial, block),
        None => Lanes([-0.0; WIDTH]),
    }
}

/// A sum of terms of which operand `AT` is the same in every lane and the other
/// one is not, for all blocks of a slot at once.
#[inline(always)]
fn weighted_values<O: Fold, const AT: usize>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &mut [Block],
    initial: Option<u32>,
    terms: &[u32],
    result: usize,
) {
    match layout.blocks {
        2 => weighted_blocks::<O, AT, 2>(layout, scalars, values, initial, terms, result, 0),
        4 => weighted_blocks::<O, AT, 4>(layout, scalars, values, initial, terms, result, 0),
        blocks => {
            for block in 0..blocks {
                weighted_blocks::<O, AT, 1>(layout, scalars, values, initial, terms, result, block);
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)] // A row's places are that many.
fn weighted_blocks<O: Fold, const AT: usize, const B: usize>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &mut [Block],
    initial: Option<u32>,
    terms: &[u32],
    result: usize,
    block: usize,
) {
    let mut sums = [ZERO; B];
    for b in 0..B {
        sums[b] = initial_value(layout, scalars, values, initial, block + b);
    }
    let (terms, _) = terms.as_chunks::<2>();
    for term in terms {
        let weight = Lanes([scalars[term[AT] as usize]; WIDTH]);
        let other = layout.value(term[1 - AT]) + block;
        let others = &values[other..other + B];
        for b in 0..B {
            let mut x = [weight; 2];
            x[1 - AT] = others[b];
            sums[b] += O::term(&x);
        }
    }
    for b in 0..B {
        values[result + block + b] = sums[b];
    }
}

impl<'a> ProgramVisitor for Values<'a> {
    type Row = &'a Row;

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: &'a Row) {
        let operands = operands::<N>(row, &self.layout.program.wide);
        let x = self.layout.places(self.scalars, self.values, operands);
        operation_values::<O, N, M>(&self.layout, self.values, &x, self.layout.value(row.result));
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: &'a Row) {
        self.operation::<O, 2, 1>(row);
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let x = self.layout.places(self.scalars, self.values, row.x);
        fused_values::<I, O, AT>(&self.layout, self.values, &x, self.layout.value(row.result));
    }

    #[inline(always)]
    fn kept<O: Operation<1, 1>>(&mut self, row: &'a Row) {
        let x = self.layout.places(self.scalars, self.values, [row.x[0]]);
        kept_values::<O>(&self.layout, self.values, &x, self.layout.value(row.result));
    }

    #[inline(always)]
    fn fold<O: Fold>(&mut self, row: &'a Row) {
        let (terms, result) = (row.wide(&self.layout.program.wide), self.layout.value(row.result));
        sum_values::<O>(&self.layout, self.scalars, self.values, None, terms, Weights::Neither, result);
    }

    #[inline(always)]
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: &'a Row) {
        let (initial, terms) = row.wide(&self.layout.program.wide).split_at(usize::from(INITIAL));
        let result = self.layout.value(row.result);
        let initial = initial.first().copied();
        sum_values::<O>(&self.layout, self.scalars, self.values, initial, terms, row.weights(), result);
    }
}

/// The values of the given rows.
pub(crate) fn values<'a>(layout: Layout<'a>, rows: &'a [Row], scalars: &[f64], values: &mut [Block]) {
    let mut sweep = Values { layout, scalars, values };
    for row in rows {
        row.code.visit(&mut sweep, row);
    }
}

// Values and tangents. Direction d of block b of the tangents is at b·directions + d.

struct Tangents<'a> {
    layout: Layout<'a>,
    directions: usize,
    scalars: &'a [f64],
    values: &'a mut [Block],
    tangents: &'a mut [Block],
}

/// Adds partial·tangent in every direction; the first product stands alone.
#[inline(always)]
fn contribute(tangents: &mut [Block], directions: usize, result: usize, operand: usize, first: bool, partial: Block) {
    let (from, to) = (operand * directions, result * directions);
    for d in 0..directions {
        let term = partial * tangents[from + d];
        tangents[to + d] = if first { term } else { tangents[to + d] + term };
    }
}

#[inline(never)]
#[allow(clippy::too_many_arguments)] // A row's places are that many.
fn operation_tangents<O: Operation<N, M>, const N: usize, const M: usize>(
    layout: &Layout<'_>,
    directions: usize,
    values: &mut [Block],
    tangents: &mut [Block],
    x: &[Place; N],
    active: &[Option<usize>; N],
    result: usize,
    target: usize,
) {
    let blocks = layout.blocks;
    at_level!(O::VECTORIZED, layout.level, {
        for block in 0..blocks {
            let x = load(values, x, block);
            let v = O::values(x);
            for j in 0..M {
                let offset = j * blocks + block;
                let mut first = true;
                for i in 0..N {
                    if let Some(operand) = active[i] {
                        let partial = O::partial(j, i, x, v);
                        contribute(tangents, directions, target + offset, operand + block, first, partial);
                        first = false;
                    }
                }
                values[result + offset] = v[j];
            }
        }
    });
}

/// The tangents of one block of an active slot, in every direction.
///
/// Cells, since the tangents of operands and of a result lie in one list: slices
/// of them are checked once, and not in every direction.
#[inline(always)]
fn directions_of(tangents: &[Cell<Block>], directions: usize, place: usize) -> &[Cell<Block>] {
    &tangents[place * directions..][..directions]
}

/// The tangents of a result of two operands, at least one of them active, in every
/// direction; `then` makes of the sum of partial·tangent what is stored.
#[inline(always)]
fn each_direction(
    sums: &[Cell<Block>],
    partials: [Block; 2],
    tangents: [Option<&[Cell<Block>]>; 2],
    then: impl Fn(Block, usize) -> Block,
) {
    // Each case is a loop of its own, so that no loop has to ask.
    let directions = sums.len();
    match tangents {
        [Some(a), Some(b)] => {
            let (a, b) = (&a[..directions], &b[..directions]);
            for d in 0..directions {
                sums[d].set(then(partials[0] * a[d].get() + partials[1] * b[d].get(), d));
            }
        }
        [Some(a), None] => {
            let a = &a[..directions];
            for d in 0..directions {
                sums[d].set(then(partials[0] * a[d].get(), d));
            }
        }
        [None, Some(b)] => {
            let b = &b[..directions];
            for d in 0..directions {
                sums[d].set(then(partials[1] * b[d].get(), d));
            }
        }
        [None, None] => {}
    }
}

#[inline(never)]
#[allow(clippy::too_many_arguments)]
fn operator_tangents<O: Operation<2, 1>>(
    layout: &Layout<'_>,
    directions: usize,
    values: &mut [Block],
    tangents: &mut [Block],
    x: &[Place; 2],
    active: &[Option<usize>; 2],
    result: usize,
    target: usize,
) {
    at_level!(true, layout.level, {
        let tangents = Cell::from_mut(tangents).as_slice_of_cells();
        for block in 0..layout.blocks {
            let x = load(values, x, block);
            let v = O::values(x);
            let partials = [O::partial(0, 0, x, v), O::partial(0, 1, x, v)];
            let of = [
                active[0].map(|slot| directions_of(tangents, directions, slot + block)),
                active[1].map(|slot| directions_of(tangents, directions, slot + block)),
            ];
            let sums = directions_of(tangents, directions, target + block);
            each_direction(
                sums,
                partials,
                of,
                #[inline(always)]
                |sum, _| sum,
            );
            values[result + block] = v[0];
        }
    });
}

#[inline(never)]
#[allow(clippy::too_many_arguments)]
fn fused_tangents<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize>(
    layout: &Layout<'_>,
    directions: usize,
    values: &mut [Block],
    tangents: &mut [Block],
    x: &[Place; 3],
    active: &[Option<usize>; 3],
    result: usize,
    target: usize,
) {
    at_level!(true, layout.level, {
        let tangents = Cell::from_mut(tangents).as_slice_of_cells();
        for block in 0..layout.blocks {
            let [a, b, c] = load(values, x, block);
            let m = I::values([a, b]);
            let x = if AT == 0 { [m[0], c] } else { [c, m[0]] };
            let v = O::values(x);
            let inner = [I::partial(0, 0, [a, b], m), I::partial(0, 1, [a, b], m)];
            let (of_m, of_c) = (O::partial(0, AT, x, v), O::partial(0, 1 - AT, x, v));
            let of = [
                active[0].map(|slot| directions_of(tangents, directions, slot + block)),
                active[1].map(|slot| directions_of(tangents, directions, slot + block)),
            ];
            let sums = directions_of(tangents, directions, target + block);
            match active[2] {
                None => each_direction(
                    sums,
                    inner,
                    of,
                    #[inline(always)]
                    |inner, _| of_m * inner,
                ),
                Some(slot) => {
                    let others = directions_of(tangents, directions, slot + block);
                    each_direction(
                        sums,
                        inner,
                        of,
                        #[inline(always)]
                        |inner, d| {
                            let (inner, other) = (of_m * inner, of_c * others[d].get());
                            if AT == 0 { inner + other } else { other + inner }
                        },
                    );
                }
            }
            values[result + block] = v[0];
        }
    });
}

/// A sum of terms; if `NESTED`, the tangent of each term is complete before it is added.
#[inline(never)]
fn sum_tangents<O: Fold, const NESTED: bool>(
    sweep: &mut Tangents<'_>,
    initial: Option<u32>,
    terms: &[u32],
    result: u32,
) {
    let Tangents { layout, directions, scalars, values, tangents } = sweep;
    let (layout, directions) = (&*layout, *directions);
    at_level!(true, layout.level, {
        for block in 0..layout.blocks {
            let (mut sum, mut first) = (Lanes([-0.0; WIDTH]), true);
            let target = layout.derivative(result) + block;
            if let Some(initial) = initial {
                sum = layout.fetch(scalars, values, initial, block);
                if layout.is_active(initial) {
                    let from = layout.derivative(initial) + block;
                    contribute(tangents, directions, target, from, true, Lanes([1.0; WIDTH]));
                    first = false;
                }
            }
            for term in terms.chunks_exact(O::STRIDE) {
                let x = load_term::<O>(layout, scalars, values, term, block);
                let x = &x[..O::STRIDE];
                sum += O::term(x);
                if NESTED && O::STRIDE == 2 && layout.is_active(term[0]) && layout.is_active(term[1]) {
                    let partials = [O::term_partial(0, x), O::term_partial(1, x)];
                    let a = (layout.derivative(term[0]) + block) * directions;
                    let b = (layout.derivative(term[1]) + block) * directions;
                    let to = target * directions;
                    for d in 0..directions {
                        let inner = partials[0] * tangents[a + d] + partials[1] * tangents[b + d];
                        tangents[to + d] = if first { inner } else { tangents[to + d] + inner };
                    }
                    first = false;
                } else {
                    for i in 0..O::STRIDE {
                        if layout.is_active(term[i]) {
                            let from = layout.derivative(term[i]) + block;
                            contribute(tangents, directions, target, from, first, O::term_partial(i, x));
                            first = false;
                        }
                    }
                }
            }
            values[layout.value(result) + block] = sum;
        }
    });
}

impl<'a> ProgramVisitor for Tangents<'a> {
    type Row = &'a Row;

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: &'a Row) {
        let operands = operands::<N>(row, &self.layout.program.wide);
        let Tangents { layout, directions, scalars, values, tangents } = self;
        let x = layout.places(scalars, values, operands);
        let active = layout.targets(operands);
        let (result, target) = (layout.value(row.result), layout.derivative(row.result));
        operation_tangents::<O, N, M>(layout, *directions, values, tangents, &x, &active, result, target);
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let Tangents { layout, directions, scalars, values, tangents } = self;
        let slots = [row.x[0], row.x[1]];
        let x = layout.places(scalars, values, slots);
        let active = layout.targets(slots);
        let (result, target) = (layout.value(row.result), layout.derivative(row.result));
        operator_tangents::<O>(layout, *directions, values, tangents, &x, &active, result, target);
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let Tangents { layout, directions, scalars, values, tangents } = self;
        let x = layout.places(scalars, values, row.x);
        let active = layout.targets(row.x);
        let (result, target) = (layout.value(row.result), layout.derivative(row.result));
        fused_tangents::<I, O, AT>(layout, *directions, values, tangents, &x, &active, result, target);
    }

    /// No row of a program for forward sweeps keeps its partial.
    #[inline(always)]
    fn kept<O: Operation<1, 1>>(&mut self, row: &'a Row) {
        self.operation::<O, 1, 1>(row);
    }

    #[inline(always)]
    fn fold<O: Fold>(&mut self, row: &'a Row) {
        let terms = row.wide(&self.layout.program.wide);
        sum_tangents::<O, false>(self, None, terms, row.result);
    }

    #[inline(always)]
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: &'a Row) {
        let (initial, terms) = row.wide(&self.layout.program.wide).split_at(usize::from(INITIAL));
        sum_tangents::<O, true>(self, initial.first().copied(), terms, row.result);
    }
}

/// Values and tangents in so many directions.
pub(crate) fn tangents(
    layout: Layout<'_>,
    directions: usize,
    scalars: &[f64],
    values: &mut [Block],
    tangents: &mut [Block],
) {
    let mut sweep = Tangents { layout, directions, scalars, values, tangents };
    for row in &layout.program.rows {
        row.code.visit(&mut sweep, row);
    }
}

// Adjoints.

/// The sums over samples of the adjoints of inputs that are read once, in a
/// chain: their contributions need not wait in a block of their own.
pub(crate) struct Streams<'a> {
    /// One for each input.
    pub sums: &'a mut [Stream],
    /// How many lanes hold a sample.
    pub samples: usize,
}

struct Adjoints<'a, 's> {
    layout: Layout<'a>,
    scalars: &'a [f64],
    /// Only the blocks for spread operands are written.
    values: &'a mut [Block],
    adjoints: &'a mut [Block],
    streams: Option<&'a mut Streams<'s>>,
}

#[inline(never)]
fn operation_adjoints<O: Operation<N, M>, const N: usize, const M: usize>(
    layout: &Layout<'_>,
    values: &[Block],
    adjoints: &mut [Block],
    x: &[Place; N],
    active: &[Option<usize>; N],
    result: usize,
    target: usize,
) {
    let blocks = layout.blocks;
    at_level!(O::VECTORIZED, layout.level, {
        for block in 0..blocks {
            let x = load(values, x, block);
            let (mut v, mut adjoint) = ([ZERO; M], [ZERO; M]);
            for j in 0..M {
                let offset = j * blocks + block;
                (v[j], adjoint[j]) = (values[result + offset], take(adjoints, target + offset));
            }
            for i in 0..N {
                if let Some(operand) = active[i] {
                    let mut contribution = O::partial(0, i, x, v) * adjoint[0];
                    for j in 1..M {
                        contribution += O::partial(j, i, x, v) * adjoint[j];
                    }
                    adjoints[operand + block] += contribution;
                }
            }
        }
    });
}

#[inline(never)]
fn kept_adjoints(
    layout: &Layout<'_>,
    values: &[Block],
    adjoints: &mut [Block],
    operand: usize,
    partial: usize,
    target: usize,
) {
    at_level!(true, layout.level, {
        for block in 0..layout.blocks {
            let contribution = values[partial + block] * take(adjoints, target + block);
            adjoints[operand + block] += contribution;
        }
    });
}

#[inline(never)]
fn fused_adjoints<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize>(
    layout: &Layout<'_>,
    values: &[Block],
    adjoints: &mut [Block],
    x: &[Place; 3],
    active: &[Option<usize>; 3],
    result: usize,
    target: usize,
) {
    at_level!(true, layout.level, {
        for block in 0..layout.blocks {
            let [a, b, c] = load(values, x, block);
            let m = I::values([a, b]);
            let x = if AT == 0 { [m[0], c] } else { [c, m[0]] };
            let (v, adjoint) = ([values[result + block]], take(adjoints, target + block));
            if let Some(c) = active[2] {
                adjoints[c + block] += O::partial(0, 1 - AT, x, v) * adjoint;
            }
            let inner = O::partial(0, AT, x, v) * adjoint;
            for i in 0..2 {
                if let Some(operand) = active[i] {
                    let contribution = I::partial(0, i, [a, b], m) * inner;
                    adjoints[operand + block] += contribution;
                }
            }
        }
    });
}

/// The contributions of a term to its operands.
#[inline(always)]
fn term_adjoints<O: Fold>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &[Block],
    adjoints: &mut [Block],
    term: &[u32],
    result: usize,
) {
    for block in 0..layout.blocks {
        let x = load_term::<O>(layout, scalars, values, term, block);
        let adjoint = adjoints[result + block];
        for i in 0..O::STRIDE {
            if layout.is_active(term[i]) {
                let operand = layout.derivative(term[i]) + block;
                adjoints[operand] += O::term_partial(i, &x[..O::STRIDE]) * adjoint;
            }
        }
    }
}

/// The contributions of terms of which operand `AT` is an input that is read
/// once, the last term first: those to it go straight into the sums over samples.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // A row's places are that many.
fn weighted_adjoints<O: Fold, const AT: usize>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &[Block],
    adjoints: &mut [Block],
    streams: &mut Streams<'_>,
    terms: &[u32],
    result: usize,
) {
    let full = streams.samples >= layout.blocks * WIDTH;
    match layout.blocks {
        2 if full => {
            weighted_adjoint_blocks::<O, AT, 2, true>(layout, scalars, values, adjoints, streams, terms, result, 0)
        }
        4 if full => {
            weighted_adjoint_blocks::<O, AT, 4, true>(layout, scalars, values, adjoints, streams, terms, result, 0)
        }
        1 if full => {
            weighted_adjoint_blocks::<O, AT, 1, true>(layout, scalars, values, adjoints, streams, terms, result, 0)
        }
        blocks => {
            for b in 0..blocks {
                weighted_adjoint_blocks::<O, AT, 1, false>(
                    layout, scalars, values, adjoints, streams, terms, result, b,
                );
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn weighted_adjoint_blocks<O: Fold, const AT: usize, const B: usize, const FULL: bool>(
    layout: &Layout<'_>,
    scalars: &[f64],
    values: &[Block],
    adjoints: &mut [Block],
    streams: &mut Streams<'_>,
    terms: &[u32],
    result: usize,
    block: usize,
) {
    let mut adjoint = [ZERO; B];
    adjoint.copy_from_slice(&adjoints[result + block..result + block + B]);
    let samples = streams.samples.saturating_sub(block * WIDTH);
    let (terms, _) = terms.as_chunks::<2>();
    for term in terms.iter().rev() {
        let weight = Lanes([scalars[term[AT] as usize]; WIDTH]);
        let other = layout.value(term[1 - AT]) + block;
        let others = &values[other..other + B];
        let place = term[AT] as usize - layout.program.first_input;
        let mut sum = streams.sums[place];
        for b in 0..B {
            let mut x = [weight; 2];
            x[1 - AT] = others[b];
            let contribution = O::term_partial(AT, &x) * adjoint[b];
            sum = if FULL {
                add_all(sum, contribution)
            } else {
                add_samples(sum, contribution, samples.saturating_sub(b * WIDTH))
            };
        }
        streams.sums[place] = sum;
        if layout.is_active(term[1 - AT]) {
            let target = layout.derivative(term[1 - AT]) + block;
            let targets = &mut adjoints[target..target + B];
            for b in 0..B {
                let mut x = [weight; 2];
                x[1 - AT] = others[b];
                targets[b] += O::term_partial(1 - AT, &x) * adjoint[b];
            }
        }
    }
}

/// Adds the lanes of a block, eight by eight.
#[inline(always)]
fn add_all(mut sum: Stream, block: Block) -> Stream {
    let (chunks, _) = block.0.as_chunks::<STREAMS>();
    for &chunk in chunks {
        sum += Lanes(chunk);
    }
    sum
}

/// Adds the first lanes of a block, so many of them.
#[inline(always)]
pub(crate) fn add_samples(mut sum: Stream, block: Block, samples: usize) -> Stream {
    if samples >= WIDTH {
        return add_all(sum, block);
    }
    for lane in 0..samples {
        sum.0[lane % STREAMS] += block.0[lane];
    }
    sum
}

/// The sums of the partial sums, in halves; returns whether one is NaN.
pub(crate) fn halve(level: SimdLevel, streams: &[Stream], sums: &mut [f64]) -> bool {
    level.run(
        #[inline(always)]
        || {
            let mut any_nan = false;
            for (Lanes(stream), sum) in streams.iter().zip(sums) {
                let mut half = [0.0; 4];
                for i in 0..4 {
                    half[i] = stream[i] + stream[i + 4];
                }
                *sum = (half[0] + half[2]) + (half[1] + half[3]);
                any_nan |= sum.is_nan();
            }
            any_nan
        },
    )
}

/// A sum contributes to its operands: one that was recorded in their order, a
/// chain as the rows that it replaces do, the last term first and the initial
/// operand before the first term.
#[inline(never)]
fn sum_adjoints<O: Fold, const CHAIN: bool>(
    sweep: &mut Adjoints<'_, '_>,
    initial: Option<u32>,
    terms: &[u32],
    weights: Weights,
    result: usize,
) {
    let Adjoints { layout, scalars, values, adjoints, streams } = sweep;
    let layout = &*layout;
    let (first, others) = if CHAIN { terms.split_at(O::STRIDE) } else { (terms, &[][..]) };
    at_level!(true, layout.level, {
        match (weights, streams) {
            (Weights::First, Some(streams)) => {
                weighted_adjoints::<O, 0>(layout, scalars, values, adjoints, streams, others, result);
                add_initial(layout, adjoints, initial, result);
                weighted_adjoints::<O, 0>(layout, scalars, values, adjoints, streams, first, result);
            }
            (Weights::Second, Some(streams)) => {
                weighted_adjoints::<O, 1>(layout, scalars, values, adjoints, streams, others, result);
                add_initial(layout, adjoints, initial, result);
                weighted_adjoints::<O, 1>(layout, scalars, values, adjoints, streams, first, result);
            }
            _ => {
                for term in others.rchunks_exact(O::STRIDE) {
                    term_adjoints::<O>(layout, scalars, values, adjoints, term, result);
                }
                add_initial(layout, adjoints, initial, result);
                for term in first.chunks_exact(O::STRIDE) {
                    term_adjoints::<O>(layout, scalars, values, adjoints, term, result);
                }
            }
        }
        adjoints[result..result + layout.blocks].fill(ZERO);
    });
}

#[inline(always)]
fn add_initial(layout: &Layout<'_>, adjoints: &mut [Block], initial: Option<u32>, result: usize) {
    if let Some(initial) = initial
        && layout.is_active(initial)
    {
        for block in 0..layout.blocks {
            let place = layout.derivative(initial) + block;
            adjoints[place] += adjoints[result + block];
        }
    }
}

impl<'a> ProgramVisitor for Adjoints<'a, '_> {
    type Row = &'a Row;

    #[inline(always)]
    fn operation<O: Operation<N, M>, const N: usize, const M: usize>(&mut self, row: &'a Row) {
        let operands = operands::<N>(row, &self.layout.program.wide);
        let layout = self.layout;
        let x = layout.places(self.scalars, self.values, operands);
        let active = layout.targets(operands);
        let (result, target) = (layout.value(row.result), layout.derivative(row.result));
        operation_adjoints::<O, N, M>(&layout, self.values, self.adjoints, &x, &active, result, target);
    }

    #[inline(always)]
    fn operator<O: Operation<2, 1>, const ACTIVE: u8>(&mut self, row: &'a Row) {
        self.operation::<O, 2, 1>(row);
    }

    #[inline(always)]
    fn fused<I: Operation<2, 1>, O: Operation<2, 1>, const AT: usize, const ACTIVE: u8>(&mut self, row: &'a Row) {
        let layout = self.layout;
        let x = layout.places(self.scalars, self.values, row.x);
        let active = layout.targets(row.x);
        let (result, target) = (layout.value(row.result), layout.derivative(row.result));
        fused_adjoints::<I, O, AT>(&layout, self.values, self.adjoints, &x, &active, result, target);
    }

    #[inline(always)]
    fn kept<O: Operation<1, 1>>(&mut self, row: &'a Row) {
        let layout = &self.layout;
        let (operand, target) = (layout.derivative(row.x[0]), layout.derivative(row.result));
        kept_adjoints(layout, self.values, self.adjoints, operand, layout.value(row.result + 1), target);
    }

    #[inline(always)]
    fn fold<O: Fold>(&mut self, row: &'a Row) {
        let (terms, result) = (row.wide(&self.layout.program.wide), self.layout.derivative(row.result));
        sum_adjoints::<O, false>(self, None, terms, Weights::Neither, result);
    }

    #[inline(always)]
    fn chain<O: Fold, const INITIAL: bool>(&mut self, row: &'a Row) {
        let (initial, terms) = row.wide(&self.layout.program.wide).split_at(usize::from(INITIAL));
        let result = self.layout.derivative(row.result);
        sum_adjoints::<O, true>(self, initial.first().copied(), terms, row.weights(), result);
    }
}

/// An adjoint that has been completed. It is 0 afterwards, so that the next
/// sweep finds all adjoints 0.
#[inline(always)]
pub(crate) fn take(adjoints: &mut [Block], place: usize) -> Block {
    std::mem::replace(&mut adjoints[place], ZERO)
}

/// The adjoints of a program, whose values are in their slots and whose weights
/// are in those of the outputs. All other adjoints are 0 before; after, all but
/// those of the inputs are.
pub(crate) fn adjoints(
    layout: Layout<'_>,
    scalars: &[f64],
    values: &mut [Block],
    adjoints: &mut [Block],
    streams: Option<&mut Streams<'_>>,
) {
    let mut sweep = Adjoints { layout, scalars, values, adjoints, streams };
    for row in layout.program.rows.iter().rev() {
        row.code.visit(&mut sweep, row);
    }
}
