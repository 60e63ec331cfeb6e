//! The datapath: parse → decide → apply.
//!
//! [`balance`] is the balancer's whole way of a packet, [`decapsulate`] the agent's. Both are generic over
//! [`Packet`] (bytes that can be read, written and grown at the head) and over tables; in XDP these are the frame and
//! the maps, on the host a vector and memory. Every exit is a [`Verdict`] and is counted exactly once, by the caller
//! that owns the counters.

mod agent;
mod announce;
mod balance;
mod chance;
mod echo;
mod encapsulate;
mod gue;
pub mod limit;
mod lookup;
mod nat;
mod odd;
mod packet;
mod parse;
mod quic;
mod quoted;
mod reset;
mod tables;
mod tagged;
mod too_big;
pub mod track;
mod verdict;
mod way;

pub use agent::{AgentTables, decapsulate, mapped};
pub use balance::{balance, straight};
pub use lookup::{fold6, port_words};
pub use nat::{Route, Wanted, reply_words, route};
pub use packet::{Cut, Packet};
pub use parse::Address;
pub use tables::{Tables, Word};
pub use verdict::{Action, Cause, Verdict, code};
pub use way::{Way, Ways, take};
