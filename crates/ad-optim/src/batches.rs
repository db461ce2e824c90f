use crate::Error;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the samples of an objective are divided into batches, epoch by epoch.
///
/// An epoch is one pass over the samples. Epochs are numbered from 1. The last batch of an epoch is smaller when the
/// size does not divide the number of samples, unless it is dropped with [`drop_last`](Batches::drop_last).
///
/// # The shuffle
///
/// The order of an epoch is a pure function of the seed and of the epoch's number, the same on every machine and in
/// every later version of this crate:
///
/// - the generator is ChaCha with 8 rounds (D. J. Bernstein, *ChaCha, a variant of Salsa20*, 2008), stream 0, keyed by
///   the 32 bytes `seed` (8, little-endian), `epoch` (8, little-endian), `"ad-optim shuffle"` (16, ASCII);
/// - the order starts as 0, 1, …, N−1 and is shuffled by Fisher–Yates (Durstenfeld, CACM 7, 1964) from the end: for
///   i = N−1, …, 1 the entries i and j are exchanged, j uniform in 0 … i;
/// - j is the high half of the 128-bit product r·(i + 1), r the generator's next 64-bit number; r is drawn anew while
///   the low half is below 2⁶⁴ mod (i + 1), which makes j exactly uniform (Lemire, ACM TOMACS 29, 2019).
///
/// One shuffled epoch of a single batch is thereby a random permutation with the same bits everywhere: cut it in two to
/// split data into a training and a held-out part.
///
/// ```
/// use ad_optim::Batches;
///
/// let order = Batches::shuffled(10).seed(7).epoch(10, 1)?.concat();
/// assert_eq!(order.split_at(8), (&[5, 2, 8, 0, 4, 9, 1, 3][..], &[6, 7][..]));
/// # Ok::<(), ad_optim::Error>(())
/// ```
///
/// # Example
///
/// ```
/// use ad_optim::Batches;
///
/// let plan = Batches::sequential(4);
/// assert_eq!(plan.epoch(10, 1)?, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
///
/// let plan = Batches::shuffled(4).seed(7).drop_last(true);
/// assert_eq!(plan.epoch(10, 1)?, [[5, 2, 8, 0], [4, 9, 1, 3]]);
/// assert_eq!(plan.epoch(10, 1)?, plan.epoch(10, 1)?);
/// # Ok::<(), ad_optim::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batches {
    /// `None` stands for all samples at once.
    pub(crate) size: Option<usize>,
    pub(crate) shuffled: bool,
    pub(crate) seed: u64,
    pub(crate) drop_last: bool,
}

impl Batches {
    /// All samples in one batch, in their order: an epoch is one step. The default of a trainer.
    pub fn full() -> Self {
        Batches { size: None, shuffled: false, seed: 0, drop_last: false }
    }

    /// Batches of `size` samples in the order of the data, the same in every epoch.
    ///
    /// A size above the number of samples gives one batch of all; size 0 is an error of the run.
    pub fn sequential(size: usize) -> Self {
        Batches { size: Some(size), ..Batches::full() }
    }

    /// Batches of `size` samples in an order drawn anew for each epoch, see [the shuffle](Batches#the-shuffle).
    ///
    /// The seed is 0 unless [`seed`](Batches::seed) sets another.
    pub fn shuffled(size: usize) -> Self {
        Batches { shuffled: true, ..Batches::sequential(size) }
    }

    /// Sets the seed of the shuffle; default 0. Without effect where nothing is shuffled.
    pub fn seed(self, seed: u64) -> Self {
        Batches { seed, ..self }
    }

    /// Whether a last batch that is smaller than the others is left out; default `false`.
    ///
    /// The samples left out of a shuffled epoch differ from epoch to epoch.
    pub fn drop_last(self, drop_last: bool) -> Self {
        Batches { drop_last, ..self }
    }

    /// The batches of one epoch over `num_samples` samples, for loops of your own; `epoch` counts from 1.
    ///
    /// # Errors
    ///
    /// [`Error::NoSamples`] for no samples, [`Error::ZeroBatchSize`] for size 0, and [`Error::NoBatch`] when
    /// `drop_last(true)` leaves no batch.
    pub fn epoch(&self, num_samples: usize, epoch: usize) -> Result<Vec<Vec<usize>>, Error> {
        let size = self.size_for(num_samples)?;
        let mut order = Vec::new();
        self.order_into(num_samples, epoch, &mut order);
        Ok(order.chunks(size).map(<[usize]>::to_vec).collect())
    }

    /// The number of samples in each batch but the last, after the checks of [`epoch`](Batches::epoch).
    pub(crate) fn size_for(&self, num_samples: usize) -> Result<usize, Error> {
        match self.size {
            _ if num_samples == 0 => Err(Error::NoSamples),
            None => Ok(num_samples),
            Some(0) => Err(Error::ZeroBatchSize),
            Some(size) if size > num_samples && self.drop_last => Err(Error::NoBatch { size, samples: num_samples }),
            Some(size) => Ok(size.min(num_samples)),
        }
    }

    /// Writes the samples an epoch visits into `order`, batch after batch; allocates nothing once `order` has room.
    ///
    /// Requires that [`size_for`](Batches::size_for) accepted `num_samples`.
    pub(crate) fn order_into(&self, num_samples: usize, epoch: usize, order: &mut Vec<usize>) {
        order.clear();
        order.extend(0..num_samples);
        if self.shuffled {
            shuffle(order, &mut generator(self.seed, epoch as u64, b"ad-optim shuffle"));
        }
        if let (true, Some(size)) = (self.drop_last, self.size) {
            order.truncate(num_samples - num_samples % size);
        }
    }

    /// The calls that make this plan; equal for plans that make the same batches.
    pub(crate) fn description(&self) -> String {
        let Batches { shuffled, seed, drop_last, .. } = self;
        let drop_last = if *drop_last && self.size.is_some() { ".drop_last(true)" } else { "" };
        match self.size {
            None => "Batches::full()".to_owned(),
            Some(size) if *shuffled => format!("Batches::shuffled({size}).seed({seed}){drop_last}"),
            Some(size) => format!("Batches::sequential({size}){drop_last}"),
        }
    }

    /// Whether this is [`Batches::full`], whatever the number of samples.
    pub(crate) fn is_full(&self) -> bool {
        self.size.is_none()
    }

    /// Whether two epochs visit the samples in the same order, so that one order serves all.
    pub(crate) fn repeats(&self) -> bool {
        !self.shuffled
    }
}

impl Default for Batches {
    fn default() -> Self {
        Batches::full()
    }
}

/// The one source of randomness of this crate: ChaCha8 under a key that says what the numbers are for.
///
/// The bytes of the key are laid out here, because `seed_from_u64` may change between versions of rand.
pub(crate) fn generator(seed: u64, counter: u64, purpose: &[u8; 16]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&counter.to_le_bytes());
    key[16..].copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

/// Fisher–Yates from the end. Our own, because the shuffle of rand is not the same in all its versions.
fn shuffle(order: &mut [usize], rng: &mut impl Rng) {
    for i in (1..order.len()).rev() {
        order.swap(i, below(i as u64 + 1, rng) as usize);
    }
}

/// A number uniform in 0 … n−1, by Lemire's multiplication with rejection.
fn below(n: u64, rng: &mut impl Rng) -> u64 {
    // 2⁶⁴ mod n of the low halves would occur once too often; they are the ones refused.
    let surplus = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= surplus {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::below;
    use rand::TryRng;
    use std::convert::Infallible;

    /// Draws given numbers, as if by chance.
    struct Given(std::vec::IntoIter<u64>);

    impl TryRng for Given {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            unreachable!("a draw takes 64 bits")
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(self.0.next().expect("a draw too many"))
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
            unreachable!("a draw takes 64 bits")
        }
    }

    #[test]
    fn draws_that_would_be_too_frequent_are_refused() {
        // 2⁶⁴ mod n is 2⁶³ − 1: the low halves 0 and 2 are below it, 2⁶³ + 1 is not.
        let mut rng = Given(vec![0, 2, 1, u64::MAX].into_iter());
        assert_eq!(below((1 << 63) + 1, &mut rng), 0);
        assert_eq!(rng.0.next(), Some(u64::MAX));
        assert_eq!(below(6, &mut Given(vec![u64::MAX].into_iter())), 5);
    }
}
