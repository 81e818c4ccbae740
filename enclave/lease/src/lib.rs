//! The lease state machine that the enclave enforces: pure, with time passed in.
