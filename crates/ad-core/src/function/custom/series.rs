//! A user's own operation along series.

use super::{Custom, Data, Rules, is_outside, write_jvp, write_partials, write_vjp};
use crate::error::Error;
use crate::function::{CustomOp, CustomProducts, Series, SeriesMemory, SeriesVec};
use crate::rule::Rule;
use crate::taylor::{Term, coefficient, make_room};

impl Custom {
    /// The series of y. The value and coefficient 1 come from what is stated for
    /// numbers, the others from the derivative as a tape.
    pub(in crate::function) fn series(
        &self,
        x: Series<'_>,
        y: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let mut values = vec![0.0; self.0.m];
        self.0.rules.value(&x.values(), &mut values);
        for (j, &value) in values.iter().enumerate() {
            y.get_mut(j)[0] = value;
        }
        match &*self.0.rules {
            _ if x.order() == 0 => Ok(()),
            Rules::Partials(op) => self.series_by_partials(&**op, x, &values, y, memory),
            Rules::Products(op) => self.series_by_products(&**op, x, &values, y, memory),
        }
    }

    /// The series of x̄ = Jᵀ·w.
    pub(in crate::function) fn adjoint_series(
        &self,
        x: Series<'_>,
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let mut values = vec![0.0; self.0.m];
        self.0.rules.value(&x.values(), &mut values);
        match &*self.0.rules {
            Rules::Partials(op) => self.adjoints_by_partials(&**op, x, &values, w, xbar, memory),
            Rules::Products(op) => self.adjoints_by_products(&**op, x, &values, w, xbar, memory),
        }
    }

    /// The series of the partials to `order`, ∂yⱼ/∂xᵢ at j·n + i, outside the
    /// domain NaN.
    fn partial_series(
        &self,
        op: &dyn CustomOp,
        x: Series<'_>,
        y: &[f64],
        order: usize,
        memory: &mut SeriesMemory,
    ) -> Result<SeriesVec, Error> {
        let Data { n, m, .. } = *self.0;
        let mut series = SeriesVec::new(n * m, order)?;
        if order > 0 {
            let mut point = SeriesVec::new(n, order)?;
            for i in 0..n {
                point.set(i, &x.get(i)[..=order]);
            }
            self.derivative()?.series(point.view(), &mut series, memory)?;
        }
        let (x, mut partials) = (x.values(), vec![0.0; n * m]);
        write_partials(op, &x, y, &mut partials);
        for (place, &partial) in partials.iter().enumerate() {
            let series = series.get_mut(place);
            series[0] = partial;
            if is_outside(&x, y[place / n]) {
                series.fill(f64::NAN);
            }
        }
        Ok(series)
    }

    /// k·y_k = Σᵢ Σ_{j=1..k} j·x_{i,j}·(∂y/∂xᵢ)_{k−j}.
    fn series_by_partials(
        &self,
        op: &dyn CustomOp,
        x: Series<'_>,
        values: &[f64],
        y: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (n, m, order) = (self.0.n, self.0.m, x.order());
        let partials = self.partial_series(op, x, values, order - 1, memory)?;
        // The operands and then the partials, whose last coefficient nothing reads.
        let mut slots = Vec::new();
        make_room(&mut slots, n + n * m, order)?;
        for (slot, i) in slots.chunks_exact_mut(order + 1).zip(0_usize..) {
            match i.checked_sub(n) {
                None => slot.copy_from_slice(x.get(i)),
                Some(place) => slot[..order].copy_from_slice(partials.view().get(place)),
            }
        }
        for j in 0..m {
            let term = |i| Term { operand: i as u32, partial: (n + j * n + i) as u32, active: true };
            let terms: Vec<Term> = (0..n).map(term).collect();
            for (k, c) in y.get_mut(j).iter_mut().enumerate().skip(1) {
                *c = coefficient(&terms, &slots, order + 1, k);
            }
        }
        Ok(())
    }

    /// x̄ᵢ = Σⱼ ∂yⱼ/∂xᵢ·wⱼ, products of series.
    fn adjoints_by_partials(
        &self,
        op: &dyn CustomOp,
        x: Series<'_>,
        values: &[f64],
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let Data { n, m, .. } = *self.0;
        let partials = self.partial_series(op, x, values, x.order(), memory)?;
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

    /// y′ = J·x′, the product being what the adjoint of w ↦ Jᵀ·w gives for the
    /// weights x′.
    fn series_by_products(
        &self,
        op: &dyn CustomProducts,
        x: Series<'_>,
        values: &[f64],
        y: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (n, m, order, of_values) = (self.0.n, self.0.m, x.order(), x.values());
        if order > 1 {
            // w is 0: Jᵀ·w is linear in it.
            let (mut point, mut weights) = (SeriesVec::new(n + m, order - 1)?, SeriesVec::new(n, order - 1)?);
            for i in 0..n {
                point.set(i, &x.get(i)[..order]);
                for (k, (c, &x)) in (1..).zip(weights.get_mut(i).iter_mut().zip(&x.get(i)[1..])) {
                    *c = f64::from(k) * x;
                }
            }
            let mut products = SeriesVec::new(n + m, order - 1)?;
            self.derivative()?.adjoint_series(point.view(), weights.view(), &mut products, memory)?;
            for j in 0..m {
                for (k, (c, &product)) in (1..).zip(y.get_mut(j)[1..].iter_mut().zip(products.view().get(n + j))) {
                    *c = product / f64::from(k);
                }
            }
        }
        let p: Vec<f64> = (0..n).map(|i| x.get(i)[1]).collect();
        let mut jp = vec![0.0; m];
        write_jvp(op, &of_values, values, &p, &mut jp);
        for (j, &jp) in jp.iter().enumerate() {
            let series = y.get_mut(j);
            series[1] = jp;
            if is_outside(&of_values, values[j]) {
                for (k, c) in series.iter_mut().enumerate().skip(1) {
                    let moves = (0..n).any(|i| x.get(i)[1..=k].iter().any(|&x| x != 0.0));
                    *c = if moves { f64::NAN } else { 0.0 };
                }
            }
        }
        Ok(())
    }

    /// Jᵀ·w by its tape.
    fn adjoints_by_products(
        &self,
        op: &dyn CustomProducts,
        x: Series<'_>,
        values: &[f64],
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (n, m, order, of_values) = (self.0.n, self.0.m, x.order(), x.values());
        if order > 0 {
            let mut point = SeriesVec::new(n + m, order)?;
            (0..n).for_each(|i| point.set(i, x.get(i)));
            (0..m).for_each(|j| point.set(n + j, w.get(j)));
            self.derivative()?.series(point.view(), xbar, memory)?;
        }
        let mut adjoints = vec![0.0; n];
        write_vjp(op, &of_values, values, &w.values(), &mut adjoints);
        for (i, &adjoint) in adjoints.iter().enumerate() {
            let series = xbar.get_mut(i);
            series[0] = adjoint;
            for (k, c) in series.iter_mut().enumerate().skip(1) {
                let weighed = |j: usize| w.get(j)[..=k].iter().any(|&w| w != 0.0);
                if (0..m).any(|j| is_outside(&of_values, values[j]) && weighed(j)) {
                    *c = f64::NAN;
                }
            }
        }
        Ok(())
    }
}
