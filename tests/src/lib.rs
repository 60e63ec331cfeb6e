//! The laboratory and the packet cases.

pub mod cases;
pub mod packet;
pub mod packet_frame;
