//! The control channel of each enclave: its status comes in, commands go out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cloister_proto as proto;
use cloister_scheduler_core::{BootId, Epoch, LeaseReport, LeaseState, Load, ReplicaIndex};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    auth::Tenants,
    dispatcher::{Command, Dispatcher},
    enclaves::Enclave,
    metrics::{CommandKind, CommandResult, Metrics},
};

/// Time for the answer to a command, and for the first message of a status stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach an enclave: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Everything that the tasks of one enclave need.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) enclave: Enclave,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why a status stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error("the enclave ended the stream")]
    Closed,
    /// The message of a status comes from the enclave and is not logged.
    #[error("gRPC status {0:?}")]
    Status(tonic::Code),
    #[error(transparent)]
    Report(#[from] BadReport),
}

/// A status that an enclave of this version does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the enclave reports a state that makes no sense: {0}")]
pub(crate) struct BadReport(&'static str);

// === impl Control ===

impl Control {
    fn replica(&self) -> ReplicaIndex {
        self.enclave.index
    }

    /// Keeps the status stream up. Never ends.
    pub(crate) async fn watch(self) {
        let enclave = self.enclave.authority();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut reached = false;
            let end = self.follow(&mut reached).await;
            self.dispatcher.unreachable(self.replica());
            if reached {
                pause = FIRST_PAUSE;
                tracing::warn!(enclave, reason = %end, "lost the enclave");
            } else {
                tracing::debug!(enclave, reason = %end, "cannot reach the enclave");
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_PAUSE);
        }
    }

    /// Follows one status stream to its end.
    async fn follow(&self, reached: &mut bool) -> StreamEnd {
        let mut client = self.enclave.control();
        let opening = async {
            let mut stream = client.status(proto::StatusRequest {}).await?.into_inner();
            let first = stream.message().await?;
            Ok::<_, tonic::Status>((stream, first))
        };
        let (mut stream, mut message) = match timeout(ANSWER_TIMEOUT, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return StreamEnd::Status(status.code()),
            Err(_) => return StreamEnd::Silent,
        };
        loop {
            let Some(status) = message else {
                return StreamEnd::Closed;
            };
            match parse(&status, &self.tenants) {
                Ok(report) => self.dispatcher.report(self.replica(), report),
                Err(error) => return error.into(),
            }
            if !std::mem::replace(reached, true) {
                tracing::info!(enclave = self.enclave.authority(), "reached the enclave");
            }
            message = match stream.message().await {
                Ok(message) => message,
                Err(status) => return StreamEnd::Status(status.code()),
            };
        }
    }

    /// Carries out commands, one at a time, each answered. Ends with the channel.
    pub(crate) async fn obey(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            let kind = match command {
                Command::Grant { .. } => CommandKind::Grant,
                Command::Drain { .. } => CommandKind::Drain,
            };
            let status = match timeout(ANSWER_TIMEOUT, self.send(command)).await {
                Ok(Ok(status)) => Some(status),
                Ok(Err(status)) => {
                    tracing::debug!(enclave = self.enclave.authority(), code = ?status.code(), "a command failed");
                    None
                }
                Err(_) => None,
            };
            let reply = status.and_then(|status| Some((status.applied, parse(&status, &self.tenants).ok()?)));
            let result = match reply {
                Some((true, _)) => CommandResult::Applied,
                Some((false, _)) => CommandResult::Stale,
                None => CommandResult::Failed,
            };
            self.metrics.command(kind, result);
            match reply {
                Some((applied, report)) => self.dispatcher.replied(self.replica(), applied, report),
                None => self.dispatcher.command_failed(self.replica()),
            }
        }
    }

    async fn send(&self, command: Command) -> Result<proto::LeaseStatus, tonic::Status> {
        let mut client = self.enclave.control();
        let reply = match command {
            Command::Grant { tenant, expect } => {
                let tenant = self.tenants.tenant_ref(tenant);
                let tenant = tenant.ok_or_else(|| tonic::Status::internal("no such tenant"))?;
                let request = proto::GrantRequest {
                    tenant_ref: Bytes::copy_from_slice(tenant.as_bytes()),
                    expect: Some(epoch(expect)),
                };
                client.grant(request).await?
            }
            Command::Drain { expect } => {
                let expect = Some(epoch(expect));
                client.drain(proto::DrainRequest { expect }).await?
            }
        };
        Ok(reply.into_inner())
    }
}

fn epoch(epoch: Epoch) -> proto::Epoch {
    proto::Epoch {
        boot_id: Bytes::copy_from_slice(&epoch.boot.0),
        number: epoch.number,
    }
}

/// A status from the wire.
pub(crate) fn parse(status: &proto::LeaseStatus, tenants: &Tenants) -> Result<LeaseReport, BadReport> {
    let epoch = status.epoch.as_ref().ok_or(BadReport("no epoch"))?;
    let boot = <[u8; 16]>::try_from(&*epoch.boot_id).map_err(|_| BadReport("length of the boot id"))?;
    let holder = || {
        let holder = (&*status.tenant_ref).try_into();
        holder
            .map(|holder| tenants.index(&holder))
            .map_err(|_| BadReport("length of the holder"))
    };
    let state = match proto::LeaseState::try_from(status.state) {
        Ok(proto::LeaseState::Scrubbing) => LeaseState::Scrubbing,
        Ok(proto::LeaseState::Vacant) => LeaseState::Vacant,
        Ok(proto::LeaseState::Held) => LeaseState::Held(holder()?),
        Ok(proto::LeaseState::Draining) => LeaseState::Draining(holder()?),
        Ok(proto::LeaseState::Failed) => LeaseState::Failed,
        Ok(proto::LeaseState::Unspecified) | Err(_) => return Err(BadReport("unknown lease state")),
    };
    let load = match proto::Load::try_from(status.load) {
        Ok(proto::Load::Low) => Load::Low,
        Ok(proto::Load::High) => Load::High,
        Ok(proto::Load::Full) => Load::Full,
        // Not known yet is as good as none: it only orders candidates.
        Ok(proto::Load::Idle | proto::Load::Unspecified) => Load::Idle,
        Err(_) => return Err(BadReport("unknown load")),
    };
    let epoch = Epoch {
        boot: BootId(boot),
        number: epoch.number,
    };
    Ok(LeaseReport { epoch, state, load })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TenantConfig;

    fn status() -> proto::LeaseStatus {
        proto::LeaseStatus {
            state: proto::LeaseState::Held.into(),
            epoch: Some(proto::Epoch {
                boot_id: Bytes::from_static(&[7; 16]),
                number: 5,
            }),
            tenant_ref: Bytes::from_static(&[1; 16]),
            load: proto::Load::High.into(),
            applied: false,
        }
    }

    fn tenants() -> Tenants {
        Tenants::new(&[TenantConfig {
            tenant_ref: cloister_session::TenantRef::from_bytes([1; 16]),
            weight: 1,
            max_queued: 1,
        }])
    }

    #[test]
    fn a_status_is_read() {
        let report = parse(&status(), &tenants()).unwrap();
        let epoch = Epoch {
            boot: BootId([7; 16]),
            number: 5,
        };
        let state = LeaseState::Held(Some(cloister_scheduler_core::TenantIndex(0)));
        let load = Load::High;
        assert_eq!(report, LeaseReport { epoch, state, load });

        let mut foreign = status();
        foreign.tenant_ref = Bytes::from_static(&[2; 16]);
        assert_eq!(parse(&foreign, &tenants()).unwrap().state, LeaseState::Held(None));
    }

    #[test]
    fn a_status_that_makes_no_sense_is_refused() {
        let changes: [fn(&mut proto::LeaseStatus); 6] = [
            |status| status.epoch = None,
            |status| status.epoch.as_mut().unwrap().boot_id = Bytes::from_static(&[7; 15]),
            |status| status.tenant_ref = Bytes::new(),
            |status| status.state = 0,
            |status| status.state = 99,
            |status| status.load = 99,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut status = status();
            change(&mut status);
            assert!(parse(&status, &tenants()).is_err(), "change {index}");
        }
    }
}
