//! Certificates, the simulated trusted execution environment, and the tenants with their credentials, all made by the
//! programs that users have too.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

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
    process::output(tool(&programs.cloister).args(["dev", "pki", "--dir"]).arg(pki))?;
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

/// The tenants of a deployment, and how their credentials are renewed.
#[derive(Debug)]
pub(super) struct Tenants {
    cloister: PathBuf,
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
            model_digest: measured.model_digest.clone(),
            tenants: Vec::new(),
        };
        for number in 1..=count {
            let name = format!("tenant-{number}");
            let folder = state.folder(Path::new("tenants").join(&name))?;
            let tenant = tenants.create_one(&name, folder)?;
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
            let mut issue = tool(&self.cloister);
            issue.args(["tenant", "issue", "--dir"]).arg(&tenant.folder);
            issue.args(["--cluster-id", CLUSTER_ID, "--model", &self.model_digest]);
            process::output(&mut issue)?;
        }
        Ok(())
    }
}

// === impl Tenants ===

impl Tenants {
    fn create_one(&self, name: &str, folder: PathBuf) -> Result<TenantFiles> {
        if !folder.join("root.key").exists() {
            process::output(
                tool(&self.cloister)
                    .args(["tenant", "create", name, "--dir"])
                    .arg(&folder),
            )?;
        }
        let mut show = tool(&self.cloister);
        show.args(["tenant", "show", "--json", "--cluster-id", CLUSTER_ID, "--dir"])
            .arg(&folder);
        let shown: serde_json::Value =
            serde_json::from_str(&process::output(&mut show)?).context("the output of `cloister tenant show`")?;
        let Some(tenant_ref) = shown.get("tenantRef").and_then(serde_json::Value::as_str) else {
            bail!("the output of `cloister tenant show` has no tenantRef");
        };
        let token_sha256 = process::output(tool(&self.cloister).args(["tenant", "token", "--dir"]).arg(&folder))?;
        Ok(TenantFiles {
            tenant_ref: tenant_ref.to_owned(),
            token_sha256: token_sha256.trim().to_owned(),
            folder,
        })
    }
}

/// One of the programs, without variables that would override its configuration.
fn tool(program: &Path) -> Command {
    let mut command = Command::new(program);
    super::child::clean_environment(&mut command);
    command
}
