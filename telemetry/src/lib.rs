//! Logs, traces and metrics of every binary.
