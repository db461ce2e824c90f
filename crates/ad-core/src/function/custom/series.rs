//! A user's own operation along series.

use super::Custom;
use crate::error::Error;
use crate::function::{Series, SeriesMemory, SeriesVec};
use crate::rule::Rule;
use crate::taylor::{Term, coefficient, make_room};

impl Custom {
    /// The series of the partials to `order`, ∂yⱼ/∂xᵢ at j·n + i, and the results.
    /// The zeroth coefficients are the partials that the operation states.
    fn partial_series(
        &self,
        x: Series<'_>,
        order: usize,
        memory: &mut SeriesMemory,
    ) -> Result<(SeriesVec, Vec<f64>), Error> {
        let (n, m) = self.shape();
        let mut series = SeriesVec::new(n * m, order)?;
        if order > 0 {
            let mut point = SeriesVec::new(n, order)?;
            for i in 0..n {
                point.set(i, &x.get(i)[..=order]);
            }
            self.derivative()?.series(point.view(), &mut series, memory)?;
        }
        let (x, mut y, mut partials) = (x.values(), vec![0.0; m], vec![0.0; n * m]);
        self.0.op.value(&x, &mut y);
        self.0.op.partials(&x, &y, &mut partials);
        for (place, &partial) in partials.iter().enumerate() {
            series.get_mut(place)[0] = partial;
        }
        Ok((series, y))
    }

    /// k·y_k = Σᵢ Σ_{j=1..k} j·x_{i,j}·(∂y/∂xᵢ)_{k−j}.
    pub(in crate::function) fn series(
        &self,
        x: Series<'_>,
        y: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let ((n, m), order) = (self.shape(), x.order());
        if order == 0 {
            let mut values = vec![0.0; m];
            self.0.op.value(&x.values(), &mut values);
            values.iter().enumerate().for_each(|(j, &value)| y.get_mut(j)[0] = value);
            return Ok(());
        }
        let (partials, values) = self.partial_series(x, order - 1, memory)?;
        // The operands and then the partials, whose last coefficient nothing reads.
        let mut slots = Vec::new();
        make_room(&mut slots, n + n * m, order)?;
        for (slot, i) in slots.chunks_exact_mut(order + 1).zip(0..n + n * m) {
            match i.checked_sub(n) {
                None => slot.copy_from_slice(x.get(i)),
                Some(place) => slot[..order].copy_from_slice(partials.view().get(place)),
            }
        }
        for (j, &value) in values.iter().enumerate() {
            let term = |i| Term { operand: i as u32, partial: (n + j * n + i) as u32, active: true };
            let terms: Vec<Term> = (0..n).map(term).collect();
            let series = y.get_mut(j);
            series[0] = value;
            for (k, c) in series.iter_mut().enumerate().skip(1) {
                *c = coefficient(&terms, &slots, order + 1, k);
            }
        }
        Ok(())
    }

    /// x̄ᵢ = Σⱼ ∂yⱼ/∂xᵢ·wⱼ, products of series.
    pub(in crate::function) fn adjoint_series(
        &self,
        x: Series<'_>,
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let ((n, m), order) = (self.shape(), x.order());
        let (partials, _) = self.partial_series(x, order, memory)?;
        for i in 0..n {
            for (k, c) in xbar.get_mut(i).iter_mut().enumerate() {
                let product = |j: usize| {
                    let (partial, w) = (&partials.view().get(j * n + i)[..=k], &w.get(j)[..=k]);
                    let terms = partial.iter().zip(w.iter().rev()).map(|(partial, &w)| partial.chain_mul(w));
                    terms.reduce(|sum, term| sum + term).unwrap_or(0.0)
                };
                *c = (0..m).map(product).reduce(|sum, product| sum + product).unwrap_or(0.0);
            }
        }
        Ok(())
    }
}
