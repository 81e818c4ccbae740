//! Free ports of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use super::Options;
use crate::error::{Context, Result};

/// Where everything listens.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Ports {
    pub(super) proxies: Vec<u16>,
    pub(super) scheduler: u16,
    pub(super) enclaves: Vec<u16>,
}

impl Ports {
    /// Chooses ports that are free now.
    ///
    /// # Errors
    ///
    /// A port that was asked for is in use.
    pub(super) fn choose(options: &Options) -> Result<Self> {
        // All are held until all are chosen, so that no port is chosen twice.
        let mut held = Vec::new();
        let mut hold = |port: u16| -> Result<u16> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context(format_args!(
                "127.0.0.1:{port} cannot be used, choose others with --port"
            ))?;
            let port = listener.local_addr().context("a free port")?.port();
            held.push(listener);
            Ok(port)
        };
        let proxies = (0..options.tenants)
            .map(|index| hold(options.port.map_or(0, |first| first.get().saturating_add(index))))
            .collect::<Result<_>>()?;
        let scheduler = hold(0)?;
        let enclaves = (0..options.replicas).map(|_| hold(0)).collect::<Result<_>>()?;
        Ok(Self {
            proxies,
            scheduler,
            enclaves,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, ffi::OsString, num::NonZeroU16};

    use super::*;
    use crate::args::Arguments;

    fn options(line: &str) -> Options {
        Options::parse(&mut Arguments::new(line.split_whitespace().map(OsString::from)).unwrap()).unwrap()
    }

    #[test]
    fn ports_are_distinct() {
        let ports = Ports::choose(&options("--tenants 3 --replicas 2").on_free_ports()).unwrap();
        let all: BTreeSet<_> = ports
            .proxies
            .iter()
            .chain([&ports.scheduler])
            .chain(&ports.enclaves)
            .collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = Options {
            port: NonZeroU16::new(port),
            ..options("")
        };
        let error = Ports::choose(&options).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}
