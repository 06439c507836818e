//! bpf(2): the commands that injection needs (`include/uapi/linux/bpf.h`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;

const MAP_TYPE_ARRAY: u32 = 2;
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// The type of a program: `enum bpf_prog_type`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum ProgramType {
    /// A traffic control classifier.
    SchedCls = 3,
    /// An express data path program.
    Xdp = 6,
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high four: little-endian hosts only.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// An instruction: its code, destination and source register, offset and immediate value.
    pub const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            destination | source << 4
        } else {
            destination << 4 | source
        };
        Instruction { code, registers, offset, immediate }
    }
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

const _: () = assert!(size_of::<ProgLoad>() == 72);
const _: () = assert!(size_of::<TestRun>() == 80);
const _: () = assert!(size_of::<MapUpdate>() == 32);
const _: () = assert!(size_of::<Instruction>() == 8);

/// # Safety
///
/// Every address inside `attributes` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    let size = size_of::<T>() as libc::c_ulong;
    let pointer = std::ptr::from_ref(attributes);
    // SAFETY: the attributes are a prefix of union bpf_attr of the given size; the caller is responsible for their
    // addresses.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    Ok(Errno::result(result)? as RawFd)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with a descriptor that bpf(2) has just returned.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An array of one `u32`. Needs CAP_BPF.
pub fn array_of_one() -> io::Result<OwnedFd> {
    let attributes = MapCreate { map_type: MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: BPF_MAP_CREATE follows no address.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

/// Sets the array's one element. Needs no capability.
pub fn set_element(map: BorrowedFd<'_>, value: u32) -> io::Result<()> {
    let key = 0u32;
    let attributes = MapUpdate {
        map_fd: map.as_raw_fd() as u32,
        key: std::ptr::from_ref(&key) as u64,
        value: std::ptr::from_ref(&value) as u64,
        ..MapUpdate::default()
    };
    // SAFETY: key and value are four bytes each, as the map was created, and outlive the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// Loads a program. Needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN.
pub fn load(kind: ProgramType, program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut prog_name = [0; 16];
    prog_name[..9].copy_from_slice(b"announced");
    let attributes = ProgLoad {
        prog_type: kind as u32,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_name,
        ..ProgLoad::default()
    };
    // SAFETY: the program has the length given, the licence ends with a zero byte, and both outlive the call.
    unsafe { bpf(PROG_LOAD, &attributes) }.map(owned)
}

/// Injects a frame as received by a device (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18).
///
/// One repetition in a batch of one: with more, the call blocks for milliseconds.
pub fn run_live(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let context = XdpMd { data_end: frame.len() as u32, ingress_ifindex: ifindex, ..XdpMd::default() };
    let attributes = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ctx_size_in: size_of::<XdpMd>() as u32,
        ctx_in: std::ptr::from_ref(&context) as u64,
        flags: TEST_XDP_LIVE_FRAMES,
        batch_size: 1,
        ..TestRun::default()
    };
    // SAFETY: frame and context have the given sizes and outlive the call, which writes to neither.
    unsafe { bpf(PROG_TEST_RUN, &attributes) }.map(drop)
}
