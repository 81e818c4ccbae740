//! gRPC of the control channel between scheduler and enclave; generated code only.
