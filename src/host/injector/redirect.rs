//! A helper tap with a BPF program that redirects the frames we write into another device's ingress.
//!
//! A frame written to the helper's descriptor is received by the helper. The program on its ingress redirects the frame to
//! the ingress of the guest's tap, so that it passes the port's filters and the bridge's FDB like the guest's own frames.
//! The helper vanishes with the process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::unistd::write;

use super::WayError;
use crate::host::netlink::{Request, Socket};
use crate::host::sys::bpf::{self, Instruction, ProgramType};
use crate::host::sys::tap;

const NAME: &str = "announce%d";

// include/uapi/linux/if_link.h, pkt_sched.h, pkt_cls.h
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_CLSACT_HANDLE: u32 = 0xffff_0000;
const TC_H_MIN_INGRESS: u32 = 0xffff_fff2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// The helper, ready to send.
#[derive(Debug)]
pub(super) struct Redirect {
    tap: OwnedFd,
    /// An array of one element: the ifindex of the target device.
    target: OwnedFd,
}

impl Redirect {
    /// Creates the helper and attaches its program. Cancel safe: the helper is then deleted at once.
    pub(super) async fn open() -> Result<Self, WayError> {
        let needing = |doing, needs| move |error: io::Error| WayError::Kernel { doing, error, needs };
        let (tap, name) = tap(NAME).map_err(needing("make the helper tap", "CAP_NET_ADMIN"))?;
        let failed = |doing| needing(doing, "CAP_BPF and CAP_NET_ADMIN");
        let index = if_nametoindex(name.as_str()).map_err(|e| failed("find the helper tap")(e.into()))?;
        let target = bpf::array_of_one().map_err(needing("make a BPF map", "CAP_BPF"))?;
        let program = program(&target);
        let program = bpf::load(ProgramType::SchedCls, &program).map_err(failed("load the BPF program"))?;
        let mut socket = Socket::open(0).map_err(failed("open a netlink socket"))?;
        attach(&mut socket, &program, index).await.map_err(failed("attach the BPF program"))?;
        switch_on(&mut socket, index).await.map_err(failed("switch on the helper tap"))?;
        Ok(Redirect { tap, target })
    }

    /// Sets the target device of the next frames; 0 for none.
    ///
    /// `PermissionDenied` without CAP_BPF on some kernels before 5.19, where `kernel.unprivileged_bpf_disabled` forbids
    /// every use of bpf(2).
    pub(super) fn aim(&self, ifindex: u32) -> io::Result<()> {
        bpf::set_element(self.target.as_fd(), ifindex)
    }

    /// Injects frames, in order, as received by the device `ifindex`; leaves those that were not sent in `frames`.
    ///
    /// A device that is down drops them silently.
    pub(super) fn send(&self, ifindex: u32, frames: &mut &[&[u8]]) -> io::Result<()> {
        self.aim(ifindex)?;
        while let [frame, rest @ ..] = *frames {
            write(&self.tap, frame)?;
            *frames = rest;
        }
        Ok(())
    }
}

/// Whether [`Redirect::send`] failed because another program deleted the helper (`EBADFD`) or set it down (`EIO`).
pub(super) fn is_taken_away(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBADFD | Errno::EIO))
}

/// `return redirect(*map_lookup(target, 0), BPF_F_INGRESS)`, or TC_ACT_SHOT without a target.
fn program(map: &OwnedFd) -> [Instruction; 14] {
    use std::os::fd::AsRawFd;
    const fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction::new(code, dst, src, offset, immediate)
    }
    [
        op(0x62, 10, 0, -4, 0),             // *(u32 *)(fp - 4) = 0
        op(0xbf, 2, 10, 0, 0),              // r2 = fp
        op(0x07, 2, 0, 0, -4),              // r2 -= 4
        op(0x18, 1, 1, 0, map.as_raw_fd()), // r1 = map
        op(0x00, 0, 0, 0, 0),               // (its upper half)
        op(0x85, 0, 0, 0, 1),               // r0 = map_lookup_elem(r1, r2)
        op(0x15, 0, 0, 5, 0),               // if r0 == 0 goto shot
        op(0x61, 1, 0, 0, 0),               // r1 = *(u32 *)r0
        op(0x15, 1, 0, 3, 0),               // if r1 == 0 goto shot
        op(0xb7, 2, 0, 0, 1),               // r2 = BPF_F_INGRESS
        op(0x85, 0, 0, 0, 23),              // r0 = redirect(r1, r2)
        op(0x95, 0, 0, 0, 0),               // exit
        op(0xb7, 0, 0, 0, 2),               // shot: r0 = TC_ACT_SHOT
        op(0x95, 0, 0, 0, 0),               // exit
    ]
}

/// Sets the helper up without addresses, so that it sends nothing of its own.
async fn switch_on(socket: &mut Socket, index: u32) -> io::Result<()> {
    let mode = Request::new(libc::RTM_SETLINK, 0)
        .fixed(&ifinfomsg(index, 0))
        .nested(libc::IFLA_AF_SPEC, &[(libc::AF_INET6 as u16, &inet6_mode())]);
    // A host without IPv6 refuses this and does not need it.
    let _ = socket.request(mode, |_| {}).await;
    let up = Request::new(libc::RTM_SETLINK, 0).fixed(&ifinfomsg(index, libc::IFF_UP as u32));
    socket.request(up, |_| {}).await
}

fn inet6_mode() -> [u8; 8] {
    let kind = IFLA_INET6_ADDR_GEN_MODE.to_ne_bytes();
    let length = 5u16.to_ne_bytes();
    [length[0], length[1], kind[0], kind[1], IN6_ADDR_GEN_MODE_NONE, 0, 0, 0]
}

/// `struct ifinfomsg` that sets `flags`.
fn ifinfomsg(index: u32, flags: u32) -> [u8; 16] {
    let mut message = [0; 16];
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    message[8..12].copy_from_slice(&flags.to_ne_bytes());
    message[12..16].copy_from_slice(&flags.to_ne_bytes());
    message
}

/// Attaches the program to the helper's ingress as a classifier (Linux 4.5). It is removed with the device.
///
/// Not as a tcx link (Linux 6.6), which waits for an RCU grace period: 6 to 14 ms instead of half a millisecond.
async fn attach(socket: &mut Socket, program: &OwnedFd, index: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let qdisc = Request::new(libc::RTM_NEWQDISC, CREATE)
        .fixed(&tcmsg(index, TC_H_CLSACT_HANDLE, TC_H_CLSACT, 0))
        .attribute(libc::TCA_KIND, b"clsact\0");
    socket.request(qdisc, |_| {}).await?;
    // Priority 1, every protocol.
    let info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    let filter = Request::new(libc::RTM_NEWTFILTER, CREATE)
        .fixed(&tcmsg(index, 0, TC_H_MIN_INGRESS, info))
        .attribute(libc::TCA_KIND, b"bpf\0")
        .nested(
            libc::TCA_OPTIONS,
            &[
                (TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes()),
                (TCA_BPF_NAME, b"announced\0"),
                (TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes()),
            ],
        );
    socket.request(filter, |_| {}).await
}

/// `struct tcmsg`.
fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut message = [0; 20];
    for (at, number) in [(4, index), (8, handle), (12, parent), (16, info)] {
        message[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    message
}
