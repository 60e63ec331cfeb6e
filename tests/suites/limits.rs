//! Rate limits: a source over its limit gets its rate, whoever else sends, and a neighbour loses nothing.
//!
//! Only counts are compared, with what a bucket would have let through of the packets that were really sent.

#[cfg(test)]
#[path = "limits/rates.rs"]
mod rates;
#[cfg(test)]
#[path = "limits/scene.rs"]
mod scene;
#[cfg(test)]
#[path = "limits/settings.rs"]
mod settings;
