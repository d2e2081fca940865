//! Computes the minimum, median and maximum of some figures.

/// Minimum, median and maximum.
pub type Spread = (f64, f64, f64);

pub fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    };
    (at(0), median, at(values.len().saturating_sub(1)))
}
