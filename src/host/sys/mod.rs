//! The system calls that no crate wraps: the only unsafe code of the project.

#![allow(unsafe_code)]

pub mod bpf;
pub mod libvirt;
pub mod packet;

use std::io;
use std::mem::{size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The polling interval for the end of a process on kernels without pidfd_open(2).
const ENDED_POLL: Duration = Duration::from_millis(10);
/// In bytes. It is glibc's default, which glibc raises unless it is set.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 128 * 1024;

mod ioctl {
    // include/uapi/linux/if_tun.h
    nix::ioctl_write_int!(tun_set_iff, b'T', 202);
}

/// Creates a tap device that exists as long as the descriptor; returns the name that the kernel gave it.
///
/// `pattern` may contain `%d` for a free number. Needs CAP_NET_ADMIN.
pub fn tap(pattern: &str) -> io::Result<(OwnedFd, String)> {
    let fd = open("/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())?;
    // SAFETY: ifreq holds only integers, arrays and a pointer, for all of which zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // The last byte stays zero, to terminate the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(pattern.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq; `request` is one, and outlives the call.
    unsafe { ioctl::tun_set_iff(fd.as_raw_fd(), std::ptr::from_mut(&mut request) as libc::c_ulong) }?;
    let name = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char);
    Ok((fd, name.collect()))
}

/// Gives the process a name (`comm` in proc(5)) of up to 15 bytes, by which process monitors count.
pub fn name_process(name: &std::ffi::CStr) {
    // The process works the same without it.
    let _ = nix::sys::prctl::set_name(name);
}

/// All threads take memory from one place: by default glibc has one for each, where what a thread has freed stays, and what it has kept is
/// spread over pages (mallopt(3)). What is free at its end goes back to the system: by default glibc keeps as much of it as twice the
/// largest text that was ever freed, and the status of thousands of announcements is megabytes. To be called before there are threads.
pub fn share_memory() {
    // SAFETY: calls without memory of ours.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}

/// Ends the process at once, without destructors, exit handlers or other threads running on.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) takes no pointer and does not return.
    unsafe { libc::_exit(status) }
}

/// Waits until a process has ended; one that does not exist has ended. Before Linux 5.3, which has no pidfd_open(2), it
/// polls proc(5) every few milliseconds.
pub async fn ended(pid: libc::pid_t) -> io::Result<()> {
    // SAFETY: pidfd_open(2) takes no pointer.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let fd = match fd {
        Err(Errno::ESRCH) => return Ok(()),
        Err(Errno::ENOSYS) => return ended_by_proc(pid).await,
        fd => fd? as libc::c_int,
    };
    // SAFETY: the kernel has just returned this descriptor, and no other code has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    readable(fd)?.readable().await.map(drop)
}

/// The open file belongs to this process, not to a later one with its number.
async fn ended_by_proc(pid: libc::pid_t) -> io::Result<()> {
    let stat = match std::fs::File::open(format!("/proc/{pid}/stat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        stat => stat?,
    };
    loop {
        let mut text = [0; 512];
        // "PID (NAME) STATE …"; the name may contain anything, and is short.
        let runs = stat.read_at(&mut text, 0).is_ok_and(|length| {
            let text = &text[..length];
            let end = text.iter().rposition(|byte| *byte == b')');
            !end.is_some_and(|end| matches!(text.get(end + 2), Some(b'Z' | b'X') | None))
        });
        if !runs {
            return Ok(());
        }
        tokio::time::sleep(ENDED_POLL).await;
    }
}

/// Registers a descriptor with the current runtime, to wait until it is readable.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, stays so until it is dropped, and always names the same descriptor; the AsyncFd
    // owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Has a netlink socket receive a multicast group (netlink(7), NETLINK_ADD_MEMBERSHIP).
pub fn join(fd: impl AsFd, group: u32) -> io::Result<()> {
    set(fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
}

/// For options whose value the kernel only reads: an integer, or a struct whose pointers outlive the call.
fn set<T>(fd: impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a value of the length given, which outlives the call.
    let set = unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(value).cast(), length) };
    Errno::result(set)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_with_and_without_a_pidfd() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id() as libc::pid_t;
        let still = Duration::from_millis(50);
        assert!(tokio::time::timeout(still, ended(pid)).await.is_err());
        assert!(tokio::time::timeout(still, ended_by_proc(pid)).await.is_err());
        drop(child.stdin.take());
        // It is a zombie until it is waited for.
        ended_by_proc(pid).await.unwrap();
        ended(pid).await.unwrap();
        child.wait().unwrap();
        ended_by_proc(pid).await.unwrap();
        ended(pid).await.unwrap();
    }
}
