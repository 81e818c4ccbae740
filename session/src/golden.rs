//! Golden files of every wire format.
