//! What is not for a service: untouched to the last bit, whatever it is.

#[cfg(test)]
#[path = "passing/frames.rs"]
mod frames;
#[cfg(test)]
#[path = "passing/host.rs"]
mod host;
#[cfg(test)]
#[path = "passing/identical.rs"]
mod identical;
