//! Functions that are recorded again where a comparison goes the other way.
//!
//! A tape is right on one branch of a function: where its guards are answered
//! as recorded. A [`Retape`] keeps the function and a tape for each branch met
//! so far. The guards of all tapes of one function form a decision tree: two of
//! them ask the same questions in the same order up to the first that they
//! answer differently. So a tape whose guard fails tells which way the function
//! goes from there, and the search tries only the tapes that went that way.

use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::drivers::Linearization;
use crate::error::{Error, expect_len};
use crate::matrix::Matrix;
use crate::record::{Answer, Builder, Escape, Guard, Outputs, SourceLocation, Var};
use crate::replay::{self, LEAF, Samples, Workspace};
use crate::tape::Tape;

/// The function of a [`Retape`] whose type is [erased](Retape::erased).
pub type RecordedFunction = dyn Fn(&[Var], &[Var]) -> Vec<Var> + Send + Sync;

/// A recorded function ℝⁿ → ℝᵐ that is recorded again wherever one of its
/// comparisons goes the other way: it keeps the closure, and a tape a branch.
///
/// It has the first-order drivers of [`Tape`] and the sums over samples, and each has
/// the bits of a tape recorded at that very point; [`Retape::tape_at`] gives the tape
/// of a point, for all else (Hessians, traces, derivative tapes). Where a tape ends in [`Error::BranchChanged`], a
/// `Retape` looks among the tapes of the other branches for the one that
/// answers every guard at x, the last used first, and records a new one if
/// there is none. Points with a NaN, whose comparisons are all false, are on a
/// branch like any other.
///
/// ```
/// use ad_core::{Error, Retape, Tape, Var};
///
/// // Newton's iteration for √a: how often it runs depends on a.
/// fn root(a: &[Var]) -> Var {
///     let mut x = Var::from(1.0);
///     while (x * x - a[0]).abs() > 1e-12 * a[0] {
///         x = 0.5 * (x + a[0] / x);
///     }
///     x
/// }
/// let tape = Tape::record(&[2.0], root)?;
/// assert!(matches!(tape.gradient(&[100.0]), Err(Error::BranchChanged { .. })));
///
/// let retape = Retape::new(&[2.0], root)?;
/// for a in [2.0, 100.0, 3.0, 1e4, 2.5, 101.0] {
///     let (y, g) = retape.gradient(&[a])?;
///     assert!((y - a.sqrt()).abs() < 1e-9 && (g[0] - 0.5 / y).abs() < 1e-9);
/// }
/// assert_eq!(retape.stats().recordings, 3); // of 5, 8 and 11 iterations
/// # Ok::<(), Error>(())
/// ```
///
/// # What the closure must keep to
///
/// - It depends on its arguments alone. One that takes another branch than its
///   values say ends in [`Error::NotDeterministic`].
/// - It returns the same number of outputs on every branch, else
///   [`Error::OutputCount`].
/// - What leaves it through [`Var::value`] is a constant of the tape, as on any
///   tape: no guard watches it. [`Retape::escapes`] lists such values.
///
/// # Memory and threads
///
/// At most [`Retape::DEFAULT_MAX_TAPES`] tapes are kept, or as many as
/// [`Retape::set_max_tapes`] says; the one not used for the longest time goes
/// first. Every method takes `&self`, and a `Retape` is `Send + Sync` if its
/// function is both: threads share what any of them recorded. No lock is held
/// while the function or a sweep runs. The `_into` drivers allocate nothing on
/// a warm workspace while the branch stays.
///
/// The type of a closure has no name. To store a `Retape` in a struct, call
/// [`Retape::erased`], which gives the plain type `Retape`.
pub struct Retape<F: ?Sized = RecordedFunction> {
    function: Arc<F>,
    /// The names, and the first point.
    recorder: Builder,
    /// Where the first recording was asked for.
    caller: &'static Location<'static>,
    params: Arc<[f64]>,
    num_outputs: usize,
    cache: Mutex<Cache>,
    /// Points that a cached tape answered.
    hits: AtomicU64,
}

/// The tapes of the branches met last, with the parameters of the `Retape`.
#[derive(Clone)]
struct Cache {
    /// The one used last.
    latest: Arc<Tape>,
    /// The others, used last first.
    earlier: Vec<Arc<Tape>>,
    max_tapes: usize,
    recordings: u64,
    rerecordings: u64,
    evictions: u64,
}

impl Cache {
    fn new(tape: Tape) -> Cache {
        let latest = Arc::new(tape);
        let max_tapes = Retape::DEFAULT_MAX_TAPES;
        Cache { latest, earlier: Vec::new(), max_tapes, recordings: 0, rerecordings: 0, evictions: 0 }
    }

    /// The tapes, used last first.
    fn tapes(&self) -> impl Iterator<Item = &Arc<Tape>> {
        std::iter::once(&self.latest).chain(&self.earlier)
    }

    /// Makes the tape the one used last, if it is still there.
    fn touch(&mut self, tape: &Arc<Tape>) {
        if let Some(position) = self.earlier.iter().position(|other| Arc::ptr_eq(other, tape)) {
            std::mem::swap(&mut self.latest, &mut self.earlier[position]);
            self.earlier[..=position].rotate_right(1);
        }
    }

    /// Adds a new recording, and gives the tape of its branch: another thread
    /// may have recorded it meanwhile.
    fn insert(&mut self, tape: Tape) -> Arc<Tape> {
        self.recordings += 1;
        self.rerecordings += 1;
        let same = self.tapes().find(|other| same_branch(other, &tape)).cloned();
        if let Some(same) = same {
            self.touch(&same);
            return same;
        }
        let before = std::mem::replace(&mut self.latest, Arc::new(tape));
        self.earlier.insert(0, before);
        self.evict();
        self.latest.clone()
    }

    fn evict(&mut self) {
        let over = (1 + self.earlier.len()).saturating_sub(self.max_tapes);
        self.earlier.truncate(self.earlier.len() - over);
        self.evictions += over as u64;
    }
}

/// The bits of those operands of a guard that are constants. The others are not
/// compared: the numbers of rows depend on the constants of a tape.
fn constants(tape: &Tape, guard: &Guard) -> [Option<u64>; 2] {
    let operands = &guard.operands[..guard.question().operands()];
    let number = |i: usize| tape.data.constants.get(*operands.get(i)? as usize).map(|c| c.to_bits());
    [number(0), number(1)]
}

fn same_branch(a: &Tape, b: &Tape) -> bool {
    let agree = |(in_a, in_b): (&Guard, &Guard)| {
        in_a.question() == in_b.question() && in_a.answer() == in_b.answer() && constants(a, in_a) == constants(b, in_b)
    };
    a.guards().len() == b.guards().len() && a.guards().iter().zip(b.guards()).all(agree)
}

/// Where the function leaves the branch of a tape: at which guard, and what it
/// answers there.
struct Fork {
    tape: Arc<Tape>,
    guard: usize,
    now: Answer,
}

impl Fork {
    /// The first guard at which a tape does not go the way of the function.
    ///
    /// A guard may compare with a number that depends on the point (that of a value
    /// which left the recording as a number does). From one on that compares with
    /// another number, one tape tells nothing of the other.
    fn missed_by(&self, tape: &Tape) -> Option<usize> {
        for (i, of_way) in self.tape.guards()[..=self.guard].iter().enumerate() {
            let Some(other) = tape.guards().get(i) else { return Some(i) };
            let same_question = other.question() == of_way.question();
            if same_question && constants(tape, other) != constants(&self.tape, of_way) {
                return None;
            }
            let answer = if i == self.guard { self.now } else { of_way.answer() };
            if !same_question || other.answer() != answer {
                return Some(i);
            }
        }
        None
    }
}

/// The tape of a branch, and the positions of the samples that take it.
type OfBranch = (Arc<Tape>, Vec<usize>);

/// What a [`Retape`] did since it was made; from [`Retape::stats`].
///
/// ```
/// # use ad_core::Retape;
/// let retape = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
/// for x in [1.0, 2.0, -1.0, -2.0] {
///     retape.eval(&[x])?;
/// }
/// let stats = retape.stats();
/// assert_eq!((stats.recordings, stats.rerecordings, stats.hits, stats.tapes, stats.evictions), (2, 1, 3, 2, 0));
/// assert_eq!(stats.to_string(), "recordings: 2 (1 after the first), hits: 3, tapes: 2, evictions: 0");
/// # Ok::<(), ad_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RetapeStats {
    /// How often the function was recorded, the first time included.
    pub recordings: u64,
    /// How often it was recorded because no cached tape had the branch.
    pub rerecordings: u64,
    /// How many points or samples a cached tape answered.
    pub hits: u64,
    /// How many tapes are cached now.
    pub tapes: usize,
    /// How many tapes were dropped to stay within the limit.
    pub evictions: u64,
}

impl fmt::Display for RetapeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetapeStats { recordings, rerecordings, hits, tapes, evictions } = self;
        write!(
            f,
            "recordings: {recordings} ({rerecordings} after the first), hits: {hits}, tapes: {tapes}, evictions: {evictions}"
        )
    }
}

impl Builder {
    /// Runs `f` once, at the given point, keeps what it did, and keeps `f`: a
    /// [`Retape`] with names and parameters.
    ///
    /// `f` receives the independent variables and the parameters.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::record`].
    ///
    /// ```
    /// use ad_core::Tape;
    /// // The Huber loss of x − k.
    /// let loss = Tape::builder().inputs(&["x"], &[0.0]).params(&["k"], &[0.0]).retape(|x, k| {
    ///     let r = x[0] - k[0];
    ///     if r.abs() <= 1.0 { 0.5 * r * r } else { r.abs() - 0.5 }
    /// })?;
    /// assert_eq!(loss.gradient(&[0.5])?, (0.125, vec![0.5]));
    /// assert_eq!(loss.gradient(&[3.0])?, (2.5, vec![1.0]));
    /// // Samples on both branches, in one sum.
    /// let samples = loss.samples(&[0.0, 1.0, 2.0, 3.0])?;
    /// assert_eq!(loss.sum_gradient(&[1.5], &samples, &[0, 1, 2, 3])?, (2.25, vec![0.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)] // A type with `impl` in it can have no name.
    pub fn retape<F, O>(self, f: F) -> Result<Retape<impl Fn(&[Var], &[Var]) -> Vec<Var> + use<F, O>>, Error>
    where
        F: Fn(&[Var], &[Var]) -> O,
        O: Outputs,
    {
        let function = move |x: &[Var], k: &[Var]| {
            let mut outputs = Vec::new();
            f(x, k).collect_into(&mut outputs);
            outputs
        };
        Retape::begin(self, Location::caller(), function)
    }
}

impl Retape {
    /// How many tapes are kept unless [`Retape::set_max_tapes`] says otherwise.
    pub const DEFAULT_MAX_TAPES: usize = 64;

    /// Runs `f` once, at `x0`, keeps what it did, and keeps `f`. See
    /// [`Builder::retape`] for names and parameters.
    ///
    /// # Errors
    ///
    /// Those of [`Tape::record`].
    ///
    /// ```
    /// use ad_core::Retape;
    /// let largest = Retape::new(&[1.0, 2.0], |x| if x[0] > x[1] { x[0] } else { x[1] })?;
    /// assert_eq!(largest.gradient(&[1.0, 2.0])?, (2.0, vec![0.0, 1.0]));
    /// assert_eq!(largest.gradient(&[5.0, 2.0])?, (5.0, vec![1.0, 0.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)] // A type with `impl` in it can have no name.
    pub fn new<F, O>(x0: &[f64], f: F) -> Result<Retape<impl Fn(&[Var], &[Var]) -> Vec<Var> + use<F, O>>, Error>
    where
        F: Fn(&[Var]) -> O,
        O: Outputs,
    {
        let function = move |x: &[Var], _: &[Var]| {
            let mut outputs = Vec::new();
            f(x).collect_into(&mut outputs);
            outputs
        };
        Retape::begin(Tape::builder().inputs(&[], x0), Location::caller(), function)
    }

    fn begin<F>(recorder: Builder, caller: &'static Location<'static>, function: F) -> Result<Retape<F>, Error>
    where
        F: Fn(&[Var], &[Var]) -> Vec<Var>,
    {
        let tape = recorder.clone().record_for(caller, &function)?;
        Ok(Retape {
            function: Arc::new(function),
            params: recorder.point()[1].into(),
            recorder,
            caller,
            num_outputs: tape.num_outputs(),
            cache: Mutex::new(Cache { recordings: 1, ..Cache::new(tape) }),
            hits: AtomicU64::new(0),
        })
    }
}

impl<F: ?Sized> Retape<F> {
    /// n, the number of independent variables.
    pub fn num_inputs(&self) -> usize {
        self.recorder.point()[0].len()
    }

    /// m, the number of dependent variables.
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// The names of the inputs; empty if they were given none.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let f = Tape::builder().inputs(&["slope"], &[1.0]).retape(|x, _| x[0].sin())?;
    /// assert_eq!(f.input_names(), ["slope"]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn input_names(&self) -> Vec<String> {
        self.latest().input_names()
    }

    /// The number of parameters.
    pub fn num_params(&self) -> usize {
        self.params.len()
    }

    /// The values of the parameters.
    pub fn params(&self) -> &[f64] {
        &self.params
    }

    /// The same function with other values of its parameters. The function and
    /// what was recorded of it are shared; from here on the two cache apart,
    /// and the statistics begin again.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless there is one number per parameter.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let f = Tape::builder().inputs(&[], &[1.0]).params(&[], &[2.0]).retape(|x, k| {
    ///     if k[0] > 0.0 { x[0] * k[0] } else { x[0] + k[0] }
    /// })?;
    /// assert_eq!(f.eval(&[5.0])?, [10.0]);
    /// assert_eq!(f.with_params(&[-2.0])?.eval(&[5.0])?, [3.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn with_params(&self, params: &[f64]) -> Result<Retape<F>, Error> {
        let with_params = |tape: &Arc<Tape>| tape.with_params(params).map(Arc::new);
        let cache = self.lock().clone();
        let latest = with_params(&cache.latest)?;
        let earlier = cache.earlier.iter().map(with_params).collect::<Result<_, _>>()?;
        let cache = Cache { latest, earlier, recordings: 0, rerecordings: 0, evictions: 0, ..cache };
        Ok(Retape {
            function: self.function.clone(),
            recorder: self.recorder.clone(),
            caller: self.caller,
            params: params.into(),
            num_outputs: self.num_outputs,
            cache: Mutex::new(cache),
            hits: AtomicU64::new(0),
        })
    }

    /// The same with the type of the function erased, so that it can be named:
    /// `Retape`, short for `Retape<RecordedFunction>`.
    ///
    /// ```
    /// use ad_core::Retape;
    /// struct Model {
    ///     loss: Retape,
    /// }
    /// let model = Model { loss: Retape::new(&[1.0], |x| x[0] * x[0])?.erased() };
    /// assert_eq!(model.loss.gradient(&[3.0])?, (9.0, vec![6.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn erased(self) -> Retape
    where
        F: Fn(&[Var], &[Var]) -> Vec<Var> + Send + Sync + Sized + 'static,
    {
        let Retape { function, recorder, caller, params, num_outputs, cache, hits } = self;
        Retape { function, recorder, caller, params, num_outputs, cache, hits }
    }

    /// Keeps at most so many tapes from now on; those not used for the longest
    /// time go at once.
    ///
    /// # Errors
    ///
    /// [`Error::NoTapes`] for 0.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let floor = Retape::new(&[0.5], |x| x[0] - x[0].to_i64().unwrap_or(0) as f64)?;
    /// floor.set_max_tapes(2)?;
    /// for x in [0.5, 1.5, 2.5] {
    ///     assert_eq!(floor.eval(&[x])?, [0.5]);
    /// }
    /// assert_eq!((floor.stats().tapes, floor.stats().evictions), (2, 1));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn set_max_tapes(&self, max_tapes: usize) -> Result<(), Error> {
        if max_tapes == 0 {
            return Err(Error::NoTapes);
        }
        let mut cache = self.lock();
        cache.max_tapes = max_tapes;
        cache.evict();
        Ok(())
    }

    /// What was recorded, answered from the cache and dropped so far.
    pub fn stats(&self) -> RetapeStats {
        let cache = self.lock();
        RetapeStats {
            recordings: cache.recordings,
            rerecordings: cache.rerecordings,
            hits: self.hits.load(Ordering::Relaxed),
            tapes: 1 + cache.earlier.len(),
            evictions: cache.evictions,
        }
    }

    /// The cached tapes, the one used last first.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// abs.eval(&[-1.0])?;
    /// let guards: Vec<String> = abs.tapes().iter().map(|tape| tape.guards()[0].to_string()).collect();
    /// assert_eq!(guards, ["v₀ > 0 was false", "v₀ > 0 was true"]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn tapes(&self) -> Vec<Tape> {
        self.lock().tapes().map(|tape| Tape::clone(tape)).collect()
    }

    /// The values that left the recordings of the cached tapes through
    /// [`Var::value`], tape by tape, the one used last first.
    ///
    /// They are constants of their tapes. No guard watches them: on a branch
    /// that was recorded before, the value of that recording is used again, and
    /// in a sum over samples that of whichever sample was recorded. A function
    /// for which this list is empty has none of it to fear.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let scaled = Retape::new(&[2.0], |x| x[0] / x[0].value())?;
    /// assert_eq!(scaled.eval(&[6.0])?, [3.0]); // 6/2: the 2 was baked in,
    /// assert_eq!(scaled.escapes()[0].value(), 2.0); // and the list says so.
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn escapes(&self) -> Vec<Escape> {
        self.lock().tapes().flat_map(|tape| tape.escapes()).cloned().collect()
    }

    /// Makes [`Samples`] whose parameters are `rows`: N × num_params numbers,
    /// row-major. They are the same as [`Samples::from_rows`] makes for one of
    /// the tapes.
    ///
    /// # Errors
    ///
    /// Those of [`Samples::from_rows`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let f = Tape::builder().inputs(&[], &[1.0]).params(&[], &[1.0, 1.0]).retape(|x, k| x[0] * k[0] + k[1])?;
    /// assert_eq!(f.samples(&[1.0, 2.0, 3.0, 4.0])?.len(), 2);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn samples(&self, rows: &[f64]) -> Result<Samples, Error> {
        Samples::from_rows(&self.latest(), rows)
    }

    /// Never held while foreign code runs: what a panic elsewhere leaves is whole.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> Arc<Tape> {
        self.lock().latest.clone()
    }

    fn count_hits(&self, points: usize) {
        self.hits.fetch_add(points as u64, Ordering::Relaxed);
    }
}

impl<F: Fn(&[Var], &[Var]) -> Vec<Var> + ?Sized> Retape<F> {
    /// Runs a driver on the tape of the branch at x.
    fn drive<R>(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        mut driver: impl FnMut(&Tape, &mut Workspace) -> Result<R, Error>,
    ) -> Result<R, Error> {
        // The driver checks the guards itself: it is the search, where the branch stays.
        match driver(&self.latest(), ws) {
            Err(Error::BranchChanged { .. }) => {
                let tape = self.search(ws, x, None)?;
                driver(&tape, ws)
            }
            done => {
                self.count_hits(usize::from(done.is_ok()));
                done
            }
        }
    }

    /// The tape of the branch at x, with other parameters than its own if there
    /// are some: a cached one, or else a new recording.
    fn search(&self, ws: &mut Workspace, x: &[f64], params: Option<&[f64]>) -> Result<Arc<Tape>, Error> {
        let tapes: Vec<Arc<Tape>> = self.lock().tapes().cloned().collect();
        let mut fork: Option<Fork> = None;
        for tape in tapes {
            if fork.as_ref().is_some_and(|fork| fork.missed_by(&tape).is_some()) {
                continue;
            }
            let Some((guard, now)) = tape.first_guard_off_branch(ws, x, params) else {
                self.lock().touch(&tape);
                self.count_hits(1);
                return Ok(tape);
            };
            fork = Some(Fork { tape, guard, now });
        }
        let tape = self.record(x, params)?;
        let not_deterministic = |tape: &Tape, guard: usize, now| {
            let guard = Box::new(tape.guards()[guard].clone());
            Error::NotDeterministic { location: SourceLocation::new(self.caller), guard, now }
        };
        if let Some(fork) = &fork
            && let Some(guard) = fork.missed_by(&tape)
        {
            let earlier = fork.tape.guards()[guard].answer();
            return Err(not_deterministic(&fork.tape, guard, if guard == fork.guard { fork.now } else { earlier }));
        }
        if let Some((guard, now)) = tape.first_guard_off_branch(ws, x, params) {
            return Err(not_deterministic(&tape, guard, now));
        }
        Ok(self.lock().insert(tape))
    }

    /// Records the function at x. No lock is held: it may use this very `Retape`.
    fn record(&self, x: &[f64], params: Option<&[f64]>) -> Result<Tape, Error> {
        let recorder = self.recorder.clone().at(x, params.unwrap_or(&self.params));
        let tape = recorder.record_for(self.caller, |x, k| (self.function)(x, k))?;
        if tape.num_outputs() != self.num_outputs {
            let location = SourceLocation::new(self.caller);
            return Err(Error::OutputCount { location, expected: self.num_outputs, got: tape.num_outputs() });
        }
        match params {
            None => Ok(tape),
            Some(_) => tape.with_params(&self.params),
        }
    }

    /// The tape of the branch at x, for whatever a [`Tape`] can do there:
    /// traces, graphs, other number types.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] unless x has one number per input; and where the
    /// function is recorded again, the errors of [`Tape::record`],
    /// [`Error::OutputCount`] and [`Error::NotDeterministic`].
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// let tape = abs.tape_at(&[-3.0])?;
    /// assert_eq!(tape.to_string(), "v₀ = x₁\nv₁ = −v₀\ny = v₁\n");
    /// println!("{}", tape.tangent_trace(&[-3.0], &[1.0])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn tape_at(&self, x: &[f64]) -> Result<Tape, Error> {
        expect_len("x (one number per input)", x.len(), self.num_inputs())?;
        Ok(Tape::clone(&*self.search(&mut Workspace::new(), x, None)?))
    }

    /// The primal sweep at x, done once, for as many J·p and Jᵀ·w there as
    /// wanted; see [`Tape::at`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`].
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// assert_eq!(abs.at(&[-3.0])?.vjp(&[2.0])?, [-2.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn at(&self, x: &[f64]) -> Result<Linearization, Error> {
        self.tape_at(x)?.at(x)
    }

    /// The values f(x), m numbers; see [`Tape::eval`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`].
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let sorted = Retape::new(&[1.0, 2.0], |x| if x[0] < x[1] { [x[0], x[1]] } else { [x[1], x[0]] })?;
    /// assert_eq!(sorted.eval(&[5.0, 3.0])?, [3.0, 5.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn eval(&self, x: &[f64]) -> Result<Vec<f64>, Error> {
        let mut y = vec![0.0; self.num_outputs];
        self.eval_into(&mut Workspace::new(), x, &mut y)?;
        Ok(y)
    }

    /// [`Retape::eval`] that allocates nothing on a warm workspace while the
    /// branch stays; see [`Tape::eval_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::eval`], and [`Error::Length`] for y.
    pub fn eval_into(&self, ws: &mut Workspace, x: &[f64], y: &mut [f64]) -> Result<(), Error> {
        self.drive(ws, x, |tape, ws| tape.eval_into(ws, x, y))
    }

    /// f(x) and J·p, m numbers each; see [`Tape::jvp`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`], [`Error::Length`] and [`Error::NonFiniteSeed`] for p.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// assert_eq!(abs.jvp(&[-3.0], &[1.0])?, (vec![3.0], vec![-1.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn jvp(&self, x: &[f64], p: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut y, mut dy) = (vec![0.0; self.num_outputs], vec![0.0; self.num_outputs]);
        self.jvp_into(&mut Workspace::new(), x, p, &mut y, &mut dy)?;
        Ok((y, dy))
    }

    /// [`Retape::jvp`] that allocates nothing on a warm workspace while the
    /// branch stays; see [`Tape::jvp_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::jvp`], and [`Error::Length`] for y and dy.
    pub fn jvp_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        p: &[f64],
        y: &mut [f64],
        dy: &mut [f64],
    ) -> Result<(), Error> {
        self.drive(ws, x, |tape, ws| tape.jvp_into(ws, x, p, y, dy))
    }

    /// f(x) and J·P for k seeds at once, one a column of `seeds` (n × k); see
    /// [`Tape::jvp_many`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::jvp`], and [`Error::Empty`] without a column.
    ///
    /// ```
    /// # use ad_core::{Matrix, Retape};
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// let (_, jp) = abs.jvp_many(&[-3.0], &Matrix::from_rows(&[[1.0, 10.0]])?)?;
    /// assert_eq!(jp.as_slice(), [-1.0, -10.0]);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn jvp_many(&self, x: &[f64], seeds: &Matrix) -> Result<(Vec<f64>, Matrix), Error> {
        let (mut y, mut jp) = (vec![0.0; self.num_outputs], Matrix::default());
        self.jvp_many_into(&mut Workspace::new(), x, seeds, &mut y, &mut jp)?;
        Ok((y, jp))
    }

    /// [`Retape::jvp_many`] that allocates nothing on a warm workspace while the
    /// branch stays; see [`Tape::jvp_many_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::jvp_many`], and [`Error::Length`] for y.
    pub fn jvp_many_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        seeds: &Matrix,
        y: &mut [f64],
        jp: &mut Matrix,
    ) -> Result<(), Error> {
        self.drive(ws, x, |tape, ws| tape.jvp_many_into(ws, x, seeds, y, jp))
    }

    /// f(x) (m numbers) and Jᵀ·w (n numbers); see [`Tape::vjp`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`], [`Error::Length`] and [`Error::NonFiniteSeed`] for w.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// assert_eq!(abs.vjp(&[-3.0], &[2.0])?, (vec![3.0], vec![-2.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn vjp(&self, x: &[f64], w: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Error> {
        let (mut y, mut xbar) = (vec![0.0; self.num_outputs], vec![0.0; self.num_inputs()]);
        self.vjp_into(&mut Workspace::new(), x, w, &mut y, &mut xbar)?;
        Ok((y, xbar))
    }

    /// [`Retape::vjp`] that allocates nothing on a warm workspace while the
    /// branch stays; see [`Tape::vjp_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::vjp`], and [`Error::Length`] for y and xbar.
    pub fn vjp_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        w: &[f64],
        y: &mut [f64],
        xbar: &mut [f64],
    ) -> Result<(), Error> {
        self.drive(ws, x, |tape, ws| tape.vjp_into(ws, x, w, y, xbar))
    }

    /// f(x) and its gradient ∇f(x) (n numbers) of a function with one output;
    /// see [`Tape::gradient`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`], and [`Error::NotScalar`] for several outputs.
    ///
    /// ```
    /// # use ad_core::Retape;
    /// let abs = Retape::new(&[1.0], |x| if x[0] > 0.0 { x[0] } else { -x[0] })?;
    /// assert_eq!(abs.gradient(&[-3.0])?, (3.0, vec![-1.0]));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn gradient(&self, x: &[f64]) -> Result<(f64, Vec<f64>), Error> {
        let mut gradient = vec![0.0; self.num_inputs()];
        let value = self.gradient_into(&mut Workspace::new(), x, &mut gradient)?;
        Ok((value, gradient))
    }

    /// [`Retape::gradient`] that allocates nothing on a warm workspace while the
    /// branch stays: writes the gradient and returns the value.
    ///
    /// # Errors
    ///
    /// Those of [`Retape::gradient`], and [`Error::Length`] for the gradient.
    pub fn gradient_into(&self, ws: &mut Workspace, x: &[f64], gradient: &mut [f64]) -> Result<f64, Error> {
        self.drive(ws, x, |tape, ws| tape.gradient_into(ws, x, gradient))
    }

    /// The Jacobian J (m × n), entry (i, j) = ∂yᵢ/∂xⱼ; see [`Tape::jacobian`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::tape_at`].
    ///
    /// ```
    /// # use ad_core::{Matrix, Retape};
    /// let sorted = Retape::new(&[1.0, 2.0], |x| if x[0] < x[1] { [x[0], x[1]] } else { [x[1], x[0]] })?;
    /// assert_eq!(sorted.jacobian(&[5.0, 3.0])?, Matrix::from_rows(&[[0.0, 1.0], [1.0, 0.0]])?);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn jacobian(&self, x: &[f64]) -> Result<Matrix, Error> {
        let mut jac = Matrix::default();
        self.jacobian_into(&mut Workspace::new(), x, &mut jac)?;
        Ok(jac)
    }

    /// [`Retape::jacobian`] that allocates nothing on a warm workspace while the
    /// branch stays; see [`Tape::jacobian_into`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::jacobian`].
    pub fn jacobian_into(&self, ws: &mut Workspace, x: &[f64], jac: &mut Matrix) -> Result<(), Error> {
        self.drive(ws, x, |tape, ws| tape.jacobian_into(ws, x, jac))
    }

    /// Σᵢ f(x; kᵢ) over the samples `idx` of a function with one output, each
    /// sample on the branch that it takes at x.
    ///
    /// The fold is that of [`Tape::sum_value`]: it looks at positions in `idx`
    /// alone, not at branches. So the bits are those of adding each sample's
    /// own value in that order, and those of the tape where all samples are on
    /// one branch. Samples of one branch are evaluated together, in lanes.
    ///
    /// # Errors
    ///
    /// [`Error::NotScalar`], [`Error::Length`] for x, [`Error::SampleWidth`],
    /// [`Error::Empty`] or [`Error::SampleIndex`] for `idx`; and those of
    /// [`Retape::tape_at`] where a sample needs a new recording.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let hinge = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).retape(|x, k| {
    ///     if x[0] > k[0] { x[0] - k[0] } else { 0.0 * x[0] }
    /// })?;
    /// let samples = hinge.samples(&[1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!(hinge.sum_value(&[2.5], &samples, &[0, 1, 2, 3])?, 2.0);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_value(&self, x: &[f64], samples: &Samples, idx: &[usize]) -> Result<f64, Error> {
        self.sum_value_into(&mut Workspace::new(), x, samples, idx)
    }

    /// [`Retape::sum_value`] with the caller's workspace. It allocates nothing
    /// on a warm one while all samples are on the branch used last.
    ///
    /// # Errors
    ///
    /// Those of [`Retape::sum_value`].
    pub fn sum_value_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Result<f64, Error> {
        self.latest().check_samples("sum_value", x, samples, idx)?;
        self.sum_subtrees(ws, x, samples, idx, 1)?;
        Ok(ws.samples.total(1)[0])
    }

    /// Σᵢ f(x; kᵢ) and its gradient Σᵢ ∇f(x; kᵢ) (n numbers) over the samples
    /// `idx`, by the fold and on the branches of [`Retape::sum_value`].
    ///
    /// # Errors
    ///
    /// Those of [`Retape::sum_value`].
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let hinge = Tape::builder().inputs(&[], &[0.0]).params(&[], &[0.0]).retape(|x, k| {
    ///     if x[0] > k[0] { x[0] - k[0] } else { 0.0 * x[0] }
    /// })?;
    /// let samples = hinge.samples(&[1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!(hinge.sum_gradient(&[2.5], &samples, &[0, 1, 2, 3])?, (2.0, vec![2.0]));
    /// assert_eq!(hinge.stats().tapes, 2);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_gradient(&self, x: &[f64], samples: &Samples, idx: &[usize]) -> Result<(f64, Vec<f64>), Error> {
        let mut gradient = vec![0.0; self.num_inputs()];
        let value = self.sum_gradient_into(&mut Workspace::new(), x, samples, idx, &mut gradient)?;
        Ok((value, gradient))
    }

    /// [`Retape::sum_gradient`] with the caller's workspace: writes the gradient
    /// and returns the value. It allocates nothing on a warm one while all
    /// samples are on the branch used last.
    ///
    /// # Errors
    ///
    /// Those of [`Retape::sum_value`], and [`Error::Length`] for `gradient`.
    pub fn sum_gradient_into(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        gradient: &mut [f64],
    ) -> Result<f64, Error> {
        self.latest().check_samples("sum_gradient", x, samples, idx)?;
        expect_len("gradient (one number per input)", gradient.len(), self.num_inputs())?;
        let width = 1 + self.num_inputs();
        self.sum_subtrees(ws, x, samples, idx, width)?;
        let total = ws.samples.total(width);
        gradient.copy_from_slice(&total[1..]);
        Ok(total[0])
    }

    /// [`Retape::sum_gradient`] over so many threads, as in
    /// [`Tape::sum_gradient_threads`]: the same bits for any number. A branch
    /// that is new to several threads at once may be recorded by each of them;
    /// one of the tapes is kept.
    ///
    /// # Errors
    ///
    /// Those of [`Retape::sum_value`], and [`Error::NoThreads`] for 0.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let f = Tape::builder().inputs(&[], &[0.5]).params(&[], &[0.0]).retape(|x, k| {
    ///     if k[0].sin() > x[0] { x[0] * k[0] } else { x[0] - k[0] }
    /// })?;
    /// let samples = f.samples(&(0..1000).map(f64::from).collect::<Vec<_>>())?;
    /// let idx: Vec<usize> = (0..1000).collect();
    /// let one = f.sum_gradient_threads(&[0.3], &samples, &idx, 1)?;
    /// assert_eq!(f.sum_gradient_threads(&[0.3], &samples, &idx, 4)?, one);
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn sum_gradient_threads(
        &self,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        threads: usize,
    ) -> Result<(f64, Vec<f64>), Error>
    where
        F: Send + Sync,
    {
        let threads = replay::threads_for(idx, threads)?;
        if threads == 1 {
            return self.sum_gradient(x, samples, idx);
        }
        self.latest().check_samples("sum_gradient_threads", x, samples, idx)?;
        let width = 1 + self.num_inputs();
        replay::sum_over_threads(idx, width, threads, |ws, idx| self.sum_subtrees(ws, x, samples, idx, width))
    }

    /// The subtrees of the sum over `idx`, left in the workspace: by leaves on
    /// the tape used last, as far as it goes; the other samples of a block each
    /// on its own tape.
    fn sum_subtrees(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
        width: usize,
    ) -> Result<(), Error> {
        /// So many numbers are kept of a block that has several branches, if
        /// that is a leaf at least: enough samples to fill the lanes of each.
        const NUMBERS: usize = 1 << 17;
        const LEAVES: usize = 16;
        let block = LEAF * (NUMBERS / (LEAF * width)).clamp(1, LEAVES);
        ws.samples.start();
        for block in idx.chunks(block) {
            let tape = self.latest();
            let mut rest = block;
            while let (leaf @ [_, ..], others) = rest.split_at(LEAF.min(rest.len())) {
                match tape.push_leaf(ws, x, samples, leaf, width) {
                    Ok(()) => rest = others,
                    Err(Error::BranchChanged { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            self.count_hits(block.len() - rest.len());
            if rest.is_empty() {
                continue;
            }
            let mut rows = vec![0.0; rest.len() * width];
            let mut of_branch = Vec::new();
            for (tape, positions) in self.by_branch(ws, x, samples, rest)? {
                let idx: Vec<usize> = positions.iter().map(|&position| rest[position]).collect();
                of_branch.resize(idx.len() * width, 0.0);
                tape.each_sample(ws, x, samples, &idx, width, &mut of_branch)?;
                for (position, row) in positions.into_iter().zip(of_branch.chunks(width)) {
                    rows[position * width..(position + 1) * width].copy_from_slice(row);
                }
            }
            for leaf in rows.chunks(LEAF * width) {
                ws.samples.push_leaf_of(leaf, width);
            }
        }
        Ok(())
    }

    /// The tapes of the branches that the samples `idx` take at x, each with
    /// the positions in `idx` of its samples.
    fn by_branch(
        &self,
        ws: &mut Workspace,
        x: &[f64],
        samples: &Samples,
        idx: &[usize],
    ) -> Result<Vec<OfBranch>, Error> {
        let mut left: Vec<usize> = (0..idx.len()).collect();
        let of_tape = |ws: &mut Workspace, tape: &Tape, left: &mut Vec<usize>| -> Vec<usize> {
            let of_left: Vec<usize> = left.iter().map(|&position| idx[position]).collect();
            let mut on_branch = tape.samples_on_branch(ws, x, samples, &of_left).into_iter();
            left.extract_if(.., |_| on_branch.next() == Some(true)).collect()
        };
        let mut branches = Vec::new();
        let tapes: Vec<Arc<Tape>> = self.lock().tapes().cloned().collect();
        for tape in tapes {
            let positions = of_tape(ws, &tape, &mut left);
            self.count_hits(positions.len());
            if !positions.is_empty() {
                branches.push((tape, positions));
            }
        }
        while let Some(&position) = left.first() {
            let tape = self.search(ws, x, Some(samples.row(idx[position])))?;
            left.remove(0);
            let mut positions = vec![position];
            positions.extend(of_tape(ws, &tape, &mut left));
            self.count_hits(positions.len() - 1);
            branches.push((tape, positions));
        }
        // The branch of most samples is the one that the next sum had best try first.
        branches.sort_by_key(|(_, positions)| positions.len());
        let mut cache = self.lock();
        branches.iter().for_each(|(tape, _)| cache.touch(tape));
        drop(cache);
        Ok(branches)
    }
}

impl<F: ?Sized> fmt::Debug for Retape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retape")
            .field("inputs", &self.num_inputs())
            .field("outputs", &self.num_outputs())
            .field("params", &self.params)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
