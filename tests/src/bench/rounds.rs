//! Interleaved rounds: everything once, then everything again in the other order, so that what disturbs the machine
//! disturbs all alike.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

use anyhow::Result;

use super::{recipe::Recipe, runner::Runner, say};

/// What the rounds gave for one recipe.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<f64>);

impl Series {
    /// The value that as many are above as below.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The middle half of the values, as a share of the median.
    pub(super) fn spread(&self) -> f64 {
        let median = self.median();
        if median > 0.0 { (self.quantile(0.75) - self.quantile(0.25)) / median } else { 0.0 }
    }

    pub(super) fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let place = at * last as f64;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }

    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Above this share of the median, the middle half is wide and more rounds are made.
const WIDE: f64 = 0.06;

/// Measures all recipes, `rounds` times each, and up to as often again while the spread is wide.
pub(super) fn measure(
    recipes: impl IntoIterator<Item = Recipe>,
    object: &Path,
    rounds: u32,
) -> Result<BTreeMap<Recipe, Series>> {
    let mut runners: BTreeMap<Recipe, Runner> = BTreeMap::new();
    for recipe in recipes {
        if let Entry::Vacant(place) = runners.entry(recipe) {
            say(&format!("preparing {:?}", place.key()));
            let runner = place.key().prepare(object)?;
            place.insert(runner);
        }
    }
    let mut series: BTreeMap<Recipe, Series> = BTreeMap::new();
    for round in 0..2 * rounds {
        let wide = series.values().filter(|s| s.spread() > WIDE).count();
        if round >= rounds && wide == 0 {
            break;
        }
        say(&format!("round {} of {rounds}, {} recipes, {wide} of wide spread", round + 1, runners.len()));
        let mut order: Vec<(&Recipe, &mut Runner)> = runners.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (recipe, runner) in order {
            series.entry(recipe.clone()).or_default().push(runner.measure()?);
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn medians_and_spreads() {
        let series: Series = [10.0, 30.0, 20.0, 40.0, 50.0].into_iter().collect();
        assert_eq!((series.median(), series.spread()), (30.0, 20.0 / 30.0));
        let even: Series = [1.0, 2.0].into_iter().collect();
        assert_eq!(even.median(), 1.5);
        assert!(Series::default().median().is_nan());
    }
}
