//! Solutions of equations along series.

use super::{Input, Lu, System};
use crate::error::Error;
use crate::function::{Series, SeriesMemory, SeriesVec};
use crate::tape::Tape;

impl System {
    /// The inputs of g to `order`, from series of x and y that are at least as long.
    fn point_series(&self, x: Series<'_>, y: Series<'_>, order: usize) -> Result<SeriesVec, Error> {
        let mut point = SeriesVec::new(self.0.inputs.len(), order)?;
        for (i, &input) in self.0.inputs.iter().enumerate() {
            let series = match input {
                Input::Operand(operand) => x.get(operand as usize),
                Input::Unknown(unknown) => y.get(unknown as usize),
            };
            point.set(i, &series[..=order]);
        }
        Ok(point)
    }

    /// The series of y, and ∂g/∂y at its value, decomposed. Where there is no
    /// solution nothing is, and y is NaN from where x moves on.
    ///
    /// Coefficient k of g(x(t), y(t)) is g_y·y_k and something that y_k is not
    /// part of: what it is if y_k is 0.
    fn solution_series(
        &self,
        x: Series<'_>,
        y: &mut SeriesVec,
        wanted: bool,
        memory: &mut SeriesMemory,
    ) -> Result<Option<Lu>, Error> {
        let (mut solution, mut lu) = (vec![0.0; self.unknowns()], Lu::default());
        let solved = self.solve(&x.values(), &mut solution, &mut lu, wanted, &mut memory.function)?;
        for (unknown, &value) in solution.iter().enumerate() {
            y.get_mut(unknown)[0] = value;
        }
        if !solved {
            let from = first_moving(x, 1);
            (0..solution.len()).for_each(|unknown| y.get_mut(unknown)[from..].fill(f64::NAN));
            return Ok(None);
        }
        let mut column = vec![0.0; self.unknowns()];
        for k in 1..=x.order() {
            let point = self.point_series(x, y.view(), k)?;
            let SeriesMemory { body, y: of_body, .. } = memory;
            of_body.reset(column.len(), k)?;
            self.0.g.body_series(body.workspace(&self.0.g, k)?, point.view(), of_body)?;
            for (j, number) in column.iter_mut().enumerate() {
                *number = -of_body.view().get(j)[k];
            }
            lu.solve(&mut column);
            for (unknown, &number) in column.iter().enumerate() {
                y.get_mut(unknown)[k] = number;
            }
        }
        Ok(Some(lu))
    }

    /// y(t) with g(x(t), y(t)) = 0.
    pub(in crate::function) fn series(
        &self,
        x: Series<'_>,
        y: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        self.solution_series(x, y, x.order() > 0, memory).map(|_| ())
    }

    /// x̄ = −g_xᵀ·λ with g_yᵀ·λ = w, coefficient by coefficient; `adjoint` is the
    /// tape of the adjoints of g.
    pub(in crate::function) fn adjoint_series(
        &self,
        adjoint: &Tape,
        x: Series<'_>,
        w: Series<'_>,
        xbar: &mut SeriesVec,
        memory: &mut SeriesMemory,
    ) -> Result<(), Error> {
        let (n, q, order) = (self.0.inputs.len(), self.unknowns(), x.order());
        let mut y = SeriesVec::new(q, order)?;
        let Some(lu) = self.solution_series(x, &mut y, true, memory)? else {
            let from = first_moving(w, 0);
            (0..self.0.num_operands).for_each(|operand| xbar.get_mut(operand)[from..].fill(f64::NAN));
            return Ok(());
        };
        let mut lambda = SeriesVec::new(q, order)?;
        let mut column = vec![0.0; q];
        for k in 0..=order {
            // What Jᵀ·λ is as long as coefficient k of λ is 0.
            let known = if k == 0 { None } else { Some(self.products(adjoint, x, &y, &lambda, k, memory)?) };
            for (i, &input) in self.0.inputs.iter().enumerate() {
                if let Input::Unknown(unknown) = input {
                    let unknown = unknown as usize;
                    let w = w.get(unknown)[k];
                    column[unknown] = known.as_ref().map_or(w, |known| w - known.view().get(i)[k]);
                }
            }
            lu.solve_transposed(&mut column);
            for (unknown, &number) in column.iter().enumerate() {
                lambda.get_mut(unknown)[k] = number;
            }
        }
        let of_inputs = self.products(adjoint, x, &y, &lambda, order, memory)?;
        for (i, &input) in self.0.inputs.iter().enumerate().take(n) {
            if let Input::Operand(operand) = input {
                for (sum, c) in xbar.get_mut(operand as usize).iter_mut().zip(of_inputs.view().get(i)) {
                    *sum = -c;
                }
            }
        }
        Ok(())
    }

    /// Jᵀ·λ of g to `order`, for all inputs of g.
    fn products(
        &self,
        adjoint: &Tape,
        x: Series<'_>,
        y: &SeriesVec,
        lambda: &SeriesVec,
        order: usize,
        memory: &mut SeriesMemory,
    ) -> Result<SeriesVec, Error> {
        let (n, q) = (self.0.inputs.len(), self.unknowns());
        let at = self.point_series(x, y.view(), order)?;
        let mut point = SeriesVec::new(n + q, order)?;
        for i in 0..n {
            point.set(i, at.view().get(i));
        }
        for j in 0..q {
            point.set(n + j, &lambda.view().get(j)[..=order]);
        }
        let mut products = SeriesVec::new(n, order)?;
        adjoint.body_series(memory.body.workspace(adjoint, order)?, point.view(), &mut products)?;
        Ok(products)
    }
}

/// The first order from `least` on at which one of the series is not 0; one more
/// than all if there is none.
fn first_moving(x: Series<'_>, least: usize) -> usize {
    let moves = |k: usize| (0..x.len()).any(|i| x.get(i)[k] != 0.0);
    (least..=x.order()).find(|&k| moves(k)).unwrap_or(x.order() + 1)
}
