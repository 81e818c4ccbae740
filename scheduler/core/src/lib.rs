//! Leases, fairness and pick: pure, with time passed in.
