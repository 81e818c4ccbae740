//! Certificates, the simulated trusted execution environment, and the tenants with their credentials, all made by the
//! programs that users have too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{
    config::{CLUSTER_ID, Measurement, TenantFiles},
    programs::Programs,
    state::State,
};
use crate::{
    error::{Context, Result, bail},
    process,
};

/// Makes the certificate authority with the certificates of the components, and the simulated environment, if they are
/// not there yet.
///
/// # Errors
///
/// One of the programs fails.
pub(super) fn infrastructure(state: &State, programs: &Programs) -> Result<()> {
    let pki = state.folder("pki")?;
    let mut certificates = tool(&programs.cloister);
    certificates.args(["dev", "pki"]).arg(pki);
    // The scheduler is called by proxies and calls enclaves.
    certificates.args([
        "--peer",
        "scheduler=127.0.0.1,localhost",
        "--server",
        "enclave=127.0.0.1,localhost",
    ]);
    process::output(&mut certificates)?;
    let tee = state.folder("tee")?;
    process::output(
        tool(&programs.enclave)
            .args(["simulated-tee", "init", "--dir"])
            .arg(tee),
    )?;
    Ok(())
}

/// What an enclave with this configuration will attest to.
///
/// # Errors
///
/// The configuration cannot be used.
pub(super) fn measure(programs: &Programs, config: &Path) -> Result<Measurement> {
    Measurement::parse(&process::output(
        tool(&programs.enclave).args(["measure", "--config"]).arg(config),
    )?)
}

/// Whether an engine can be kept from the enclave's memory; if not, says so.
///
/// # Errors
///
/// The enclave's program does not start.
pub(super) fn confined(programs: &Programs) -> Result<bool> {
    let confined = process::output(tool(&programs.enclave).arg("confinement"))?.trim_end() == "full";
    if !confined {
        eprintln!("the engine is NOT confined: it could read the enclave's memory; run as root to have it confined");
    }
    Ok(confined)
}

/// The tenants of a deployment, and how their credentials are renewed.
#[derive(Debug)]
pub(super) struct Tenants {
    cloister: PathBuf,
    folder: PathBuf,
    model_digest: String,
    tenants: Vec<TenantFiles>,
}

impl Tenants {
    /// Makes `count` tenants, or takes those that the folder has, and issues a credential for each.
    ///
    /// # Errors
    ///
    /// `cloister tenant` fails.
    pub(super) fn create(state: &State, programs: &Programs, count: u16, measured: &Measurement) -> Result<Self> {
        let mut tenants = Self {
            cloister: programs.cloister.clone(),
            folder: state.folder("tenants")?,
            model_digest: measured.model_digest.clone(),
            tenants: Vec::new(),
        };
        for number in 1..=count {
            let tenant = tenants.create_one(&format!("tenant-{number}"))?;
            tenants.tenants.push(tenant);
        }
        tenants.renew()?;
        Ok(tenants)
    }

    /// All tenants, in the order of their proxies.
    pub(super) fn files(&self) -> &[TenantFiles] {
        &self.tenants
    }

    /// Issues a new credential for each; the proxies notice.
    ///
    /// # Errors
    ///
    /// `cloister tenant issue` fails.
    pub(super) fn renew(&self) -> Result<()> {
        for tenant in &self.tenants {
            self.tenant(&[
                "issue",
                &tenant.name,
                "--cluster",
                CLUSTER_ID,
                "--models",
                &self.model_digest,
            ])?;
        }
        Ok(())
    }

    fn create_one(&self, name: &str) -> Result<TenantFiles> {
        let folder = self.folder.join(name);
        // Who a tenant is stays the same from one run to the next.
        if !folder.join("root.key").exists() {
            self.tenant(&["create", name])?;
        }
        let shown = self.tenant(&["show", name, "--cluster", CLUSTER_ID])?;
        // A token is only ever known by its digest, so each run makes its own.
        let token = folder.join("token");
        if token.exists() {
            fs::remove_file(&token).context(token.display())?;
        }
        let made = self.tenant(&["token", name])?;
        Ok(TenantFiles {
            name: name.to_owned(),
            tenant_ref: text(&shown, "tenantRef")?,
            token_sha256: text(&made, "tokenSha256")?,
            token,
            member: folder.join("members/default"),
        })
    }

    /// Runs `cloister tenant` and returns its answer.
    fn tenant(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = tool(&self.cloister);
        command
            .args(["--output", "json", "tenant", "--dir"])
            .arg(&self.folder)
            .args(arguments);
        serde_json::from_str(&process::output(&mut command)?).context("the output of `cloister tenant`")
    }
}

fn text(value: &Value, name: &str) -> Result<String> {
    match value.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => bail!("the output of `cloister tenant` has no {name}"),
    }
}

/// One of the programs, without variables that would override its configuration.
fn tool(program: &Path) -> Command {
    let mut command = Command::new(program);
    super::child::clean_environment(&mut command);
    command
}
