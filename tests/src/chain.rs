//! The real scheduler and real proxies in front of an enclave.

use std::{fs, net::SocketAddr, path::PathBuf};

use cloister_attestation::UnixTime;
use cloister_client::tenant::{Issue, Tenant};
use cloister_session::{TenantRef, credential::SaltScope};
use serde_json::{Value, json};

use crate::{
    child::Child,
    enclave::Enclave,
    openai,
    programs::programs,
    site::{CLUSTER, MODEL, Site, free_address},
    tenant::now,
    wait,
};

/// A tenant whose keys are files, as its proxy needs them.
#[derive(Debug, Clone)]
pub struct Member {
    /// The tenant's reference.
    pub reference: TenantRef,
    token_sha256: String,
    folder: PathBuf,
}

impl Member {
    /// Makes a tenant of this name for the model of `enclave`.
    #[must_use]
    pub fn new(enclave: &Enclave, name: &str) -> Self {
        let tenants = enclave.site().join("tenants");
        fs::create_dir_all(&tenants).expect("a folder");
        let tenant = Tenant::at(&tenants, name).expect("a name");
        tenant.create().expect("a tenant");
        let issue = Issue {
            member: "member".to_owned(),
            cluster_id: CLUSTER.to_owned(),
            models: vec![enclave.model()],
            life: 3600,
            salt_scope: SaltScope::Tenant,
        };
        let UnixTime(seconds) = now();
        tenant.issue(&issue, UnixTime(seconds)).expect("a credential");
        Self {
            reference: tenant.reference(CLUSTER).expect("a reference"),
            token_sha256: tenant.token().expect("a token").sha256.to_string(),
            folder: tenants.join(name),
        }
    }
}

/// A local proxy. Dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Proxy {
    /// Starts the proxy of a tenant behind whatever listens at `endpoint`, and waits until a request would succeed.
    pub async fn start(enclave: &Enclave, endpoint: &str, member: &Member, options: &Options) -> Self {
        let (site, address) = (enclave.site(), free_address());
        let policy = site.join("policy.yaml");
        fs::write(&policy, enclave.policy().to_yaml().expect("YAML")).expect("a file");
        let name = format!("proxy-{}", address.port());
        let config = site.write(
            &format!("{name}.yaml"),
            &json!({
                "listen": address,
                "endpoint": endpoint,
                "ca": site.join("pki/ca.pem"),
                "clusterId": CLUSTER,
                "credential": member.folder.join("members/member/credential"),
                "memberKey": member.folder.join("members/member/member.key"),
                "outerToken": member.folder.join("token"),
                "policy": policy,
                "models": {MODEL: enclave.model()},
                "retries": {"attempts": options.attempts},
            }),
        );
        let log = site.join(&format!("{name}.log"));
        let config = config.to_str().expect("a plain path");
        let child = Child::start(
            &programs().cloister,
            &["proxy", "--config", config, "--log-filter", options.log],
            log,
        );
        wait::until("a proxy that is ready", || async {
            let reply = openai::get(address, "/readyz").await?;
            reply.status.is_success().then_some(())
        })
        .await;
        Self { child, address }
    }
}

/// What differs from one chain to the next.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Filter of all logs.
    pub log: &'static str,
    /// Attempts of a proxy for one request.
    pub attempts: u32,
    /// Longest admission of one tenant while another waits.
    pub quantum_millis: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: "info",
            attempts: 4,
            quantum_millis: 300,
        }
    }
}

/// Scheduler and proxies, one per tenant.
#[derive(Debug)]
pub struct Chain {
    /// The scheduler.
    pub scheduler: Child,
    /// Its proxies.
    pub proxies: Vec<Proxy>,
    /// Their tenants.
    pub members: Vec<Member>,
}

impl Chain {
    /// Starts everything in front of `enclave`.
    pub async fn start(enclave: &Enclave, tenants: usize, options: &Options) -> Self {
        let members: Vec<_> = (1..=tenants)
            .map(|number| Member::new(enclave, &format!("tenant-{number}")))
            .collect();
        let address = free_address();
        let scheduler = scheduler(enclave.site(), address, enclave.address(), &members, options);
        let endpoint = format!("https://{address}");
        let mut proxies = Vec::new();
        for member in &members {
            proxies.push(Proxy::start(enclave, &endpoint, member, options).await);
        }
        Self {
            scheduler,
            proxies,
            members,
        }
    }
}

fn scheduler(site: &Site, address: SocketAddr, enclave: &str, members: &[Member], options: &Options) -> Child {
    let tenants: Vec<Value> = members
        .iter()
        .map(|member| json!({"tenantRef": member.reference}))
        .collect();
    let credentials: Vec<Value> = members
        .iter()
        .map(|member| json!({"tokenSha256": member.token_sha256, "tenantRefs": [member.reference]}))
        .collect();
    let config = site.write(
        "scheduler.yaml",
        &json!({
            "listen": address,
            "tls": site.tls("scheduler"),
            "clusterId": CLUSTER,
            "enclaves": [enclave],
            "tenants": tenants,
            "credentials": credentials,
            "lease": {"quantumMillis": options.quantum_millis, "switchCostMillis": 50, "drainCapMillis": 60_000},
        }),
    );
    let config = config.to_str().expect("a plain path");
    let arguments = ["--config", config, "--log-filter", options.log];
    Child::start(&programs().scheduler, &arguments, site.join("scheduler.log"))
}
