//! Command line of Cloister.
