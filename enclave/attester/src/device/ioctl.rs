//! The ioctls, with the kernel's structures: the only unsafe code about them.

#![allow(unsafe_code, reason = "ioctl takes structures by their address")]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::ioctl::{Updater, ioctl, opcode};

use super::{
    CERTIFICATES_LEN, DeviceError, REQUEST_LEN, RESPONSE_LEN, RawRefusal, RawReport, SevDevice, TDREPORT_LEN,
    open_error,
};

/// `snp_guest_request_ioctl`. `exitinfo2` is a union there, with two halves of the same bytes.
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}

/// `snp_ext_report_req`, whose first member is a `snp_report_req`.
#[repr(C)]
struct ExtendedRequest {
    data: [u8; REQUEST_LEN],
    certs_address: u64,
    certs_len: u32,
}

/// `tdx_report_req`.
#[repr(C)]
struct TdxReportRequest {
    reportdata: [u8; 64],
    tdreport: [u8; TDREPORT_LEN],
}

// The layout of include/uapi/linux/sev-guest.h on every 64-bit architecture.
const _: () = {
    assert!(size_of::<GuestRequest>() == 32);
    assert!(offset_of!(GuestRequest, msg_version) == 0);
    assert!(offset_of!(GuestRequest, req_data) == 8);
    assert!(offset_of!(GuestRequest, resp_data) == 16);
    assert!(offset_of!(GuestRequest, exitinfo2) == 24);
    assert!(size_of::<ExtendedRequest>() == 112);
    assert!(offset_of!(ExtendedRequest, data) == 0);
    assert!(offset_of!(ExtendedRequest, certs_address) == 96);
    assert!(offset_of!(ExtendedRequest, certs_len) == 104);
    // include/uapi/linux/tdx-guest.h.
    assert!(size_of::<TdxReportRequest>() == 1088);
    assert!(offset_of!(TdxReportRequest, reportdata) == 0);
    assert!(offset_of!(TdxReportRequest, tdreport) == 64);
};

/// `SNP_GET_EXT_REPORT`: `_IOWR('S', 0x2, struct snp_guest_request_ioctl)`.
const SNP_GET_EXT_REPORT: rustix::ioctl::Opcode = opcode::read_write::<GuestRequest>(b'S', 2);
/// `TDX_CMD_GET_REPORT0`: `_IOWR('T', 1, struct tdx_report_req)`.
const TDX_CMD_GET_REPORT0: rustix::ioctl::Opcode = opcode::read_write::<TdxReportRequest>(b'T', 1);

// The numbers that the kernel's headers come to.
const _: () = {
    assert!(SNP_GET_EXT_REPORT == 0xc020_5302);
    assert!(TDX_CMD_GET_REPORT0 == 0xc440_5401);
};

/// Version of the firmware's messages.
const MESSAGE_VERSION: u8 = 1;

/// `/dev/sev-guest`.
#[derive(Debug)]
pub struct SevGuest(File);

/// `/dev/tdx_guest`.
#[derive(Debug)]
pub struct TdxGuest(File);

impl SevGuest {
    /// Opens the device.
    ///
    /// # Errors
    /// [`DeviceError::Open`].
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        open(path).map(Self)
    }
}

impl SevDevice for SevGuest {
    fn extended_report(&self, request: &[u8; REQUEST_LEN]) -> Result<RawReport, RawRefusal> {
        let mut response = [0u8; RESPONSE_LEN];
        let mut certificates = vec![0u8; CERTIFICATES_LEN];
        let mut extended = ExtendedRequest {
            data: *request,
            certs_address: certificates.as_mut_ptr().expose_provenance() as u64,
            certs_len: CERTIFICATES_LEN as u32,
        };
        let mut call = GuestRequest {
            msg_version: MESSAGE_VERSION,
            req_data: (&raw mut extended).expose_provenance() as u64,
            resp_data: response.as_mut_ptr().expose_provenance() as u64,
            exitinfo2: 0,
        };
        // SAFETY: the number is that of this structure, whose layout is asserted above. Its addresses are those of `extended`,
        // `response` and `certificates`, which outlive the call and are not touched in it; the kernel reads and writes
        // `snp_ext_report_req` at the first, writes at most RESPONSE_LEN bytes at the second, and at most `certs_len` bytes,
        // the length of that buffer, at the third.
        let result = unsafe {
            ioctl(
                self.0.as_fd(),
                Updater::<{ SNP_GET_EXT_REPORT }, GuestRequest>::new(&mut call),
            )
        };
        match result {
            Ok(()) => {
                // The table says itself where it ends; the buffer is longer, and of zeros from there on.
                Ok(RawReport { response, certificates })
            }
            Err(error) => Err(RawRefusal {
                source: error.into(),
                exitinfo2: call.exitinfo2,
            }),
        }
    }
}

impl TdxGuest {
    /// Opens the device.
    ///
    /// # Errors
    /// [`DeviceError::Open`].
    pub fn open(path: &Path) -> Result<Self, DeviceError> {
        open(path).map(Self)
    }

    /// A TDREPORT that carries `report_data`: only this processor can check it.
    ///
    /// # Errors
    /// [`DeviceError::Call`].
    pub fn report(&self, report_data: &[u8; 64]) -> Result<[u8; TDREPORT_LEN], DeviceError> {
        let mut request = TdxReportRequest {
            reportdata: *report_data,
            tdreport: [0; TDREPORT_LEN],
        };
        // SAFETY: the number is that of this structure, whose layout is asserted above; it holds no addresses, and the kernel
        // reads and writes it only within the call.
        let result = unsafe {
            ioctl(
                self.0.as_fd(),
                Updater::<{ TDX_CMD_GET_REPORT0 }, TdxReportRequest>::new(&mut request),
            )
        };
        result.map(|()| request.tdreport).map_err(|error| DeviceError::Call {
            call: "TDX_CMD_GET_REPORT0",
            source: error.into(),
            firmware: 0,
            host: 0,
            hint: "",
        })
    }
}

fn open(path: &Path) -> Result<File, DeviceError> {
    let file: io::Result<File> = OpenOptions::new().read(true).write(true).open(path);
    file.map_err(|source| open_error(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = SevGuest::open(Path::new("/nonexistent/sev-guest"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/sev-guest") && error.contains("guest driver"),
            "{error}"
        );
        assert!(TdxGuest::open(Path::new("/nonexistent/tdx_guest")).is_err());
    }

    #[test]
    fn a_device_of_another_kind_refuses_the_call() {
        let null = SevGuest::open(Path::new("/dev/null")).unwrap();
        let refusal = null.extended_report(&[0; REQUEST_LEN]).unwrap_err();
        assert_eq!(refusal.source.raw_os_error(), Some(25), "ENOTTY");
        let null = TdxGuest::open(Path::new("/dev/null")).unwrap();
        assert!(
            null.report(&[0; 64])
                .unwrap_err()
                .to_string()
                .contains("TDX_CMD_GET_REPORT0")
        );
    }
}
