//! `cloister tenant`

use crate::args::{IssueArgs, SaltScope, TenantCommand};
use crate::output::{Failed, Printer};
use cloister_client::clock;
use cloister_client::tenant::{Issue, Tenant};
use cloister_session::credential;
use serde_json::json;
use std::env;
use std::path::{Path, PathBuf};

pub(crate) fn run(dir: Option<&Path>, command: TenantCommand, printer: &Printer) -> Result<(), Failed> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => default_dir()?,
    };
    match command {
        TenantCommand::Create { name } => create(&dir, &name, printer),
        TenantCommand::Issue(args) => issue(&dir, args, printer),
        TenantCommand::Show { name, cluster } => show(&dir, &name, cluster.as_deref(), printer),
        TenantCommand::Token { name } => token(&dir, &name, printer),
    }
}

fn create(dir: &Path, name: &str, printer: &Printer) -> Result<(), Failed> {
    let id = Tenant::at(dir, name)
        .and_then(|tenant| tenant.create())
        .map_err(Failed::unusable)?;
    let place = dir.join(name);
    printer.result(
        &format!(
            "tenant {id}\nroot key in {}: whoever has it is the tenant; keep a copy, a lost key cannot be replaced",
            place.display()
        ),
        &json!({ "tenantId": id, "directory": place }),
    );
    Ok(())
}

fn issue(dir: &Path, args: IssueArgs, printer: &Printer) -> Result<(), Failed> {
    let issue = Issue {
        member: args.member,
        cluster_id: args.cluster,
        models: args.models,
        life: args.life,
        salt_scope: match args.salt_scope {
            SaltScope::Member => credential::SaltScope::Member,
            SaltScope::Tenant => credential::SaltScope::Tenant,
        },
    };
    let issued = Tenant::at(dir, &args.name)
        .and_then(|tenant| tenant.issue(&issue, clock::now()))
        .map_err(Failed::unusable)?;
    printer.result(
        &format!(
            "credential {}\nmember key {}\nvalid until {}",
            issued.credential.display(),
            issued.member_key.display(),
            clock::rfc3339(issued.not_after)
        ),
        &json!({ "credential": issued.credential, "memberKey": issued.member_key, "notAfter": issued.not_after.0 }),
    );
    Ok(())
}

fn show(dir: &Path, name: &str, cluster: Option<&str>, printer: &Printer) -> Result<(), Failed> {
    let tenant = Tenant::at(dir, name).map_err(Failed::unusable)?;
    let id = tenant.id().map_err(Failed::unusable)?;
    let reference = cluster
        .map(|cluster| tenant.reference(cluster))
        .transpose()
        .map_err(Failed::unusable)?;
    let mut text = format!("tenant id   {id}");
    match (reference, cluster) {
        (Some(reference), Some(cluster)) => text.push_str(&format!("\ntenant_ref  {reference}  (cluster {cluster})")),
        _ => text.push_str("\ntenant_ref  is different in each cluster: name one with --cluster"),
    }
    printer.result(
        &text,
        &json!({ "tenantId": id, "tenantRef": reference, "clusterId": cluster }),
    );
    Ok(())
}

fn token(dir: &Path, name: &str, printer: &Printer) -> Result<(), Failed> {
    let token = Tenant::at(dir, name)
        .and_then(|tenant| tenant.token())
        .map_err(Failed::unusable)?;
    printer.result(
        &format!("token in {}\ntokenSha256: {}", token.path.display(), token.sha256),
        &json!({ "token": token.path, "tokenSha256": token.sha256 }),
    );
    Ok(())
}

fn default_dir() -> Result<PathBuf, Failed> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    config
        .map(|config| config.join("cloister").join("tenants"))
        .ok_or_else(|| {
            Failed::unusable("neither XDG_CONFIG_HOME nor HOME is set: name the directory of tenants with --dir")
        })
}
