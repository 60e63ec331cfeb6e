//! What a spread of requests must look like.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::traffic::SpreadReport;

/// Standard deviations above the mean that still count as chance: one in thirty thousand.
const DEVIATIONS: f64 = 4.0;

/// Every one of `requests` was answered, and no client address saw more than one backend.
///
/// # Errors
/// Otherwise, with the first failures or all wanderers.
pub fn steady(report: &SpreadReport, requests: usize) -> Result<()> {
    ensure!(
        report.answered() == requests && report.failed == 0,
        "{} of {requests} requests answered, {} failed: {:#?}",
        report.answered(),
        report.failed,
        report.failures
    );
    let wanderers: Vec<_> = report.wanderers().into_iter().map(|w| (w, &report.answers[&w])).collect();
    ensure!(wanderers.is_empty(), "client addresses that saw several backends: {wanderers:?}");
    Ok(())
}

/// As [`steady`], and the client addresses are spread over `names` as chance would spread them over equal weights.
///
/// # Errors
/// Otherwise, with the numbers.
pub fn balanced(report: &SpreadReport, requests: usize, names: &[&str]) -> Result<()> {
    steady(report, requests)?;
    let weights: Vec<_> = names.iter().map(|name| (*name, 1)).collect();
    by_weight(&report.clients_per_backend(), &weights)
}

/// `counts` are spread over the backends of `weights` as chance would spread them.
///
/// # Errors
/// When something went elsewhere, or the spread is not chance.
pub fn by_weight(counts: &BTreeMap<String, usize>, weights: &[(&str, u16)]) -> Result<()> {
    let stranger = counts.keys().find(|name| weights.iter().all(|(known, _)| known != name));
    ensure!(stranger.is_none(), "nobody should have gone to {}: {counts:?}", stranger.map_or("", |s| s));
    let total: usize = counts.values().sum();
    let sum: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let terms = weights.iter().map(|(name, weight)| {
        let seen = counts.get(*name).copied().unwrap_or_default() as f64;
        let expected = total as f64 * f64::from(*weight) / sum;
        (seen - expected).powi(2) / expected
    });
    let (chi_square, bound) = (terms.sum::<f64>(), chi_square_bound(weights.len() - 1));
    ensure!(
        chi_square <= bound,
        "chi-square {chi_square:.1} is above {bound:.1}: {counts:?} for {weights:?}"
    );
    Ok(())
}

/// Upper bound of a chi-square distributed number (Wilson and Hilferty's approximation).
fn chi_square_bound(degrees_of_freedom: usize) -> f64 {
    let n = degrees_of_freedom as f64;
    let v = 2.0 / (9.0 * n);
    n * (1.0 - v + DEVIATIONS * v.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: [usize; 3]) -> BTreeMap<String, usize> {
        ["b1", "b2", "b3"].map(str::to_owned).into_iter().zip(values).collect()
    }

    #[test]
    fn the_bound_is_that_of_the_tables() {
        // One in 31,574 exactly: 2 ln 31,574 for two degrees of freedom. The approximation is a little generous there.
        let exact = 2.0 * 31_574f64.ln();
        let bound = chi_square_bound(2);
        assert!((exact..exact * 1.07).contains(&bound), "{bound} for {exact}");
    }

    #[test]
    fn chance_is_accepted_and_skew_is_not() {
        let equal = [("b1", 1), ("b2", 1), ("b3", 1)];
        by_weight(&counts([90, 105, 105]), &equal).unwrap();
        by_weight(&counts([150, 76, 74]), &[("b1", 200), ("b2", 100), ("b3", 100)]).unwrap();
        let error = by_weight(&counts([150, 76, 74]), &equal).unwrap_err().to_string();
        assert!(error.contains("chi-square"), "{error}");
        assert!(by_weight(&counts([100, 100, 1]), &equal[..2]).unwrap_err().to_string().contains("b3"));
    }
}
