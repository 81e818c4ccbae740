//! Manifests that NVIDIA never signed, under a root of the test's own.
