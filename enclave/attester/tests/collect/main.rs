//! Evidence of machines with a TEE and GPUs, from a fake configfs and a fake `libnvidia-ml.so.1`.

mod fake_configfs;
mod fake_nvml;
mod gpu;
mod machine;
mod snp;
mod tdx;
mod tsm;
