//! What identifies a tape: a hash of its content.

use std::collections::HashMap;
use std::sync::Arc;

use crate::formula::Name;
use crate::function::Function;
use crate::tape::{Tape, TapeData};

/// The hash FNV-1a with 128 bits.
pub(crate) struct Fnv(u128);

impl Fnv {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Fnv::PRIME);
        }
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.bytes(&(count as u64).to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes(text.as_bytes());
    }

    fn texts(&mut self, texts: impl ExactSizeIterator<Item = String>) {
        self.count(texts.len());
        texts.for_each(|text| self.text(&text));
    }

    fn operands(&mut self, data: &TapeData, operands: &[u32]) {
        self.count(operands.len());
        for &operand in operands {
            match (operand as usize).checked_sub(data.first_input()) {
                None => {
                    self.bytes(b"c");
                    self.bytes(&constant_bits(data, operand).to_le_bytes());
                }
                Some(variable) => {
                    self.bytes(b"v");
                    self.count(variable);
                }
            }
        }
    }
}

/// The bits of a constant; all NaN are one, since their bits differ between processors.
pub(super) fn constant_bits(data: &TapeData, index: u32) -> u64 {
    number_bits(data.constants[index as usize])
}

pub(super) fn number_bits(value: f64) -> u64 {
    if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() }
}

/// The hashes of functions and of the tapes that they run, each computed once.
#[derive(Default)]
pub(crate) struct Contents {
    functions: HashMap<*const (), u128>,
    tapes: HashMap<*const TapeData, u128>,
}

impl Contents {
    pub(crate) fn function(&mut self, function: &Function) -> u128 {
        if let Some(&known) = self.functions.get(&function.address()) {
            return known;
        }
        let mut hash = Fnv(Fnv::OFFSET);
        hash.text("ad-core function 1");
        function.write_content(&mut hash, self);
        self.functions.insert(function.address(), hash.0);
        hash.0
    }

    /// A tape that a function runs, with the values that its parameters have.
    pub(crate) fn write_body(&mut self, body: &Tape, hash: &mut Fnv) {
        hash.bytes(&self.tape(&body.data).to_le_bytes());
        hash.count(body.params.len());
        body.params.iter().for_each(|&k| hash.bytes(&number_bits(k).to_le_bytes()));
    }

    fn tape(&mut self, data: &Arc<TapeData>) -> u128 {
        if let Some(&known) = self.tapes.get(&Arc::as_ptr(data)) {
            return known;
        }
        let mut hash = Fnv(Fnv::OFFSET);
        hash.text("ad-core tape 1");
        hash.count(data.num_inputs);
        hash.count(data.num_params);
        hash.texts(data.input_names.iter().map(Name::to_string));
        hash.texts(data.param_names.iter().cloned());
        hash.count(data.num_rows());
        for row in 0..data.num_rows() {
            hash.text(data.op(row).info().name);
            if let Some(function) = data.function(row) {
                hash.bytes(&self.function(function).to_le_bytes());
            }
            hash.operands(data, data.operands(row));
        }
        hash.count(data.guards.len());
        for guard in &data.guards {
            hash.text(guard.question().word());
            hash.operands(data, &guard.operands[..guard.question().operands()]);
            hash.text(&guard.answer().to_string());
        }
        hash.operands(data, &data.outputs);
        self.tapes.insert(Arc::as_ptr(data), hash.0);
        hash.0
    }
}

impl Tape {
    /// A number that two tapes share if they state the same function in the
    /// same rows: to see whether a model changed, or to name a file in a cache.
    /// Print it by `{:032x}`.
    ///
    /// It does not depend on the machine or the version of Rust. Locations,
    /// escapes and the current values of the parameters are left out: moving code
    /// or [`Tape::with_params`] leaves it as it is. [`Tape::diff`] of two tapes is
    /// empty exactly if they share it (but for accidents, 1 in 2¹²⁸).
    ///
    /// It is FNV-1a with 128 bits over these bytes; a *count* is a number of 8
    /// bytes, the lowest first, and a *text* the count of its bytes and they
    /// themselves, in UTF-8:
    ///
    /// 1. the text `ad-core tape 1`; the counts of inputs and of parameters; the
    ///    count of the names of inputs (0 if none were given) and each as a text;
    ///    those of parameters in the same way;
    /// 2. the count of rows, and for each the name of its operation as a text and
    ///    its operands; between these, for a row that calls a function, the 16 bytes
    ///    of the function's own hash, the lowest first;
    /// 3. the count of guards, and for each the question as a text (`<`, `<=`,
    ///    `>`, `>=`, `==`, `!=`, `partial_cmp`, `is_nan`, `is_finite`,
    ///    `is_infinite`, `is_sign_negative`, `to_i64`, `is_normal`, `is_subnormal`), its operands, and the
    ///    answer as a text (as [`Answer`](crate::Answer) prints it);
    /// 4. the outputs as operands.
    ///
    /// *Operands* are their count, and for each either the byte `c` and the 8 bytes
    /// of a constant (a NaN as `7ff8000000000000`), the lowest first, or the byte
    /// `v` and the count that numbers inputs, parameters and rows from 0.
    ///
    /// The hash of a function covers what it runs: of a loop its body, the values of
    /// the body's parameters, the iterations and the places of the arguments; of
    /// an [`Implicit`](crate::Implicit) its equations, not the solver; of a
    /// [`Custom`](crate::Custom) its name and shape, since code has no content.
    /// Names of tapes are left out.
    ///
    /// ```
    /// use ad_core::Tape;
    /// let square = Tape::record(&[2.0], |x| x[0] * x[0])?;
    /// let elsewhere = Tape::record(&[7.0], |x| x[0] * x[0])?;
    /// let cube = Tape::record(&[2.0], |x| x[0] * x[0] * x[0])?;
    /// assert_eq!(square.content_hash(), elsewhere.content_hash());
    /// assert_ne!(square.content_hash(), cube.content_hash());
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn content_hash(&self) -> u128 {
        Contents::default().tape(&self.data)
    }
}
