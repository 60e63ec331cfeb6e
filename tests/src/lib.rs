//! The laboratory and the packet cases.
