//! A folder with everything that programs find and do not make.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
};

use cloister_transport::{ClientTls, TlsFiles, client_config, install_crypto, pki};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::programs::programs;

/// Cluster of every site.
pub const CLUSTER: &str = "test-cluster";
/// Name under which the model is served.
pub const MODEL: &str = "test-model";

/// The folder, removed with the last clone.
#[derive(Clone, Debug)]
pub struct Site {
    folder: Arc<TempDir>,
}

impl Site {
    /// Makes certificates for an enclave, for a scheduler, and for a lying one.
    #[must_use]
    pub fn new() -> Self {
        install_crypto();
        let folder = tempfile::Builder::new()
            .prefix("cloister-")
            .tempdir()
            .expect("a folder");
        let pki = folder.path().join("pki");
        pki::create(&pki, pki::Existing::Replace).expect("an authority");
        for name in ["enclave", "scheduler"] {
            pki::issue(
                &pki,
                name,
                &["127.0.0.1", "localhost"],
                pki::Usage::ServerAndClient,
                pki::Existing::Replace,
            )
            .expect("a certificate");
        }
        fs::write(
            folder.path().join("model"),
            "The simulator has no model; this file has a digest.\n",
        )
        .expect("a file");
        Self {
            folder: Arc::new(folder),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file or folder in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a configuration.
    pub fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, serde_norway::to_string(value).expect("YAML")).expect("a file");
        path
    }

    /// Certificate files of `name` as configurations name them.
    #[must_use]
    pub fn tls(&self, name: &str) -> Value {
        let TlsFiles { ca, certificate, key } = self.tls_files(name);
        json!({"ca": ca, "certificate": certificate, "key": key})
    }

    /// Certificate files of `name`.
    #[must_use]
    pub fn tls_files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.join("pki/ca.pem"),
            certificate: self.join(&format!("pki/{name}.pem")),
            key: self.join(&format!("pki/{name}.key")),
        }
    }

    /// What a scheduler connects with, lying or not.
    #[must_use]
    pub fn client_tls(&self) -> ClientTls {
        let files = self.tls_files("scheduler");
        client_config(&files.ca, Some((&files.certificate, &files.key))).expect("a configuration")
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// The SIMULATED TEE of all tests: making its keys takes seconds, so they are kept from one run to the next.
pub fn simulated_tee() -> &'static Path {
    static TEE: OnceLock<PathBuf> = OnceLock::new();
    TEE.get_or_init(|| {
        let scratch = &programs().scratch;
        fs::create_dir_all(scratch).expect("a folder");
        let lock = File::create(scratch.join("lock")).expect("a lock");
        lock.lock().expect("a lock");
        let folder = scratch.join("tee");
        let init = Command::new(&programs().enclave)
            .args(["simulated-tee", "init", "--dir"])
            .arg(&folder)
            .output()
            .expect("the enclave's program starts");
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        folder
    })
}

/// An address on this machine that nobody listens on, and that no other caller gets.
#[must_use]
pub fn free_address() -> SocketAddr {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut given = GIVEN.lock().expect("never poisoned");
        if !given.contains(&address.port()) {
            given.push(address.port());
            return address;
        }
    }
}
