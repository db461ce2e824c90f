//! The bits of every operation of the table, against those that are stored.
//!
//! For each operation `tests/golden/bits.txt` holds one hash of its results at
//! all combinations of its probe points and, if it has one operand, at 1000
//! operands more, whose exponents are spread over the whole range. So a change
//! of bits, on whatever machine, does not go unnoticed. That the engines give
//! what `Operation::value` does, which is called here, is the matter of
//! `operations.rs`.
//!
//! Where a change is meant, `UPDATE_GOLDEN=1 cargo test -p ad-core --test
//! golden` writes the file anew.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ad_core::Op;
use ad_core::ops::{self, Fold, Operation};
use common::product;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/bits.txt");
const UPDATE: &str = "UPDATE_GOLDEN=1 cargo test -p ad-core --test golden";

/// The hash of Fowler, Noll and Vo with 64 bits, in its variant 1a.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Takes in the bits of a number. All NaN are one, as their sign and
    /// payload differ between processors.
    fn number(&mut self, x: f64) {
        let x = if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() };
        x.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }
}

/// Operands of either sign with all exponents: the bits of a number are those
/// of an integer that a shift register and a product scramble (xorshift*). One
/// half has exponents from −20 to 11, where most functions change most.
fn operands() -> impl Iterator<Item = f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..1000).map(move |i| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        if i % 2 == 0 {
            f64::from_bits(bits)
        } else {
            let exponent = 1023 - 20 + ((bits >> 52) & 31);
            f64::from_bits((bits & ((1 << 63) | ((1 << 52) - 1))) | (exponent << 52))
        }
    })
}

fn hash_of_operation<O: Operation<N, M>, const N: usize, const M: usize>(op: Op) -> u64 {
    let mut hash = Fnv::new();
    let mut take = |x: &[f64]| O::value(x.try_into().unwrap()).into_iter().for_each(|y| hash.number(y));
    product(op.info().probes).iter().for_each(|x| take(x));
    if N == 1 {
        operands().for_each(|x| take(&[x]));
    }
    hash.0
}

fn hash_of_fold<O: Fold>(op: Op) -> u64 {
    let mut hash = Fnv::new();
    product(op.info().probes).iter().for_each(|x| hash.number(O::value(x)));
    hash.0
}

macro_rules! operations {
    (operations { $($Op:ident)* } folds { $($Fold:ident)* }) => {
        fn hash(op: Op) -> u64 {
            match op {
                $(Op::$Op => hash_of_operation::<ops::$Op, _, _>(op),)*
                $(Op::$Fold => hash_of_fold::<ops::$Fold>(op),)*
                other => panic!("{other:?} is missing from the list of this test"),
            }
        }
    };
}

operations! {
    operations {
        Add Sub Mul Div Rem Neg Recip Powi Powf Pow Sqrt Cbrt Hypot Exp Exp2 ExpM1 Ln Log2 Log10 Log Ln1p Sin
        Cos Tan Asin Acos Atan Atan2 Sinh Cosh Tanh Asinh Acosh Atanh Logistic Softplus Relu LogAddExp XLogX XLogY Abs
        Sign Signum Copysign Min Max Clamp Floor Ceil Round RoundTiesEven Trunc Erf Erfc Lgamma Digamma MulAdd SelectLt
        SelectLe SelectGt SelectGe SelectEq SelectNe PowerSlope PowerTimesLn PowerDerivative Exp2Scaled LogSlope CbrtSlope Direction DirectionSlope DirectionTurn
        Inversion InversePowerRe InversePowerIm Trigamma Polygamma Sech2 Gauss GaussSlope Lorentz OnePlusLn LogisticSlope OneMinusSquare
        LogisticDifference HeavisideDifference Exceeds Inside ChainMul ChainDiv Domain SinCos
    }
    folds { Sum Dot }
}

/// The operations whose line is missing, too much or different.
fn changes(stored: &str, computed: &str) -> Vec<String> {
    let lines = |text: &str| -> BTreeMap<String, String> {
        text.lines().filter_map(|line| line.split_once(' ')).map(|(name, hash)| (name.into(), hash.into())).collect()
    };
    let (stored, computed) = (lines(stored), lines(computed));
    let names = stored.keys().chain(computed.keys().filter(|name| !stored.contains_key(*name)));
    names.filter(|name| stored.get(*name) != computed.get(*name)).cloned().collect()
}

fn computed() -> String {
    Op::ALL.iter().map(|&op| format!("{} {:016x}\n", op.info().name, hash(op))).collect()
}

#[test]
fn the_bits_are_those_that_are_stored() {
    let computed = computed();
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        fs::write(FILE, &computed).unwrap();
        return;
    }
    let stored = fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}; write it by\n    {UPDATE}"));
    let changed = changes(&stored, &computed);
    assert!(
        changed.is_empty(),
        "the bits of these operations are not those in {FILE}:\n    {}\nIf that is meant, write them anew by\n    \
         {UPDATE}\nand say in the change log that the bits changed.",
        changed.join("\n    ")
    );
}

#[test]
fn a_change_is_noticed() {
    let computed = computed();
    assert!(changes(&computed, &computed).is_empty());
    let name = Op::Exp.info().name;
    let line = format!("{name} {:016x}\n", hash(Op::Exp));
    assert!(computed.contains(&line));
    let other = format!("{name} {:016x}\n", hash(Op::Exp) ^ 1);
    assert_eq!(changes(&computed.replace(&line, &other), &computed), [name]);
    assert_eq!(changes(&computed.replace(&line, ""), &computed), [name]);
    assert_eq!(changes(&computed, &computed.replace(&line, "")), [name]);

    // A single bit of a single number counts, and the kind of a NaN does not.
    let of = |x: f64| {
        let mut hash = Fnv::new();
        hash.number(x);
        hash.0
    };
    assert_ne!(of(0.0), of(-0.0));
    assert_ne!(of(1.0), of(1.0 + f64::EPSILON));
    assert_eq!(of(f64::NAN), of(f64::from_bits(0xfff8_0000_0000_0123)));
}
