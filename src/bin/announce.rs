//! announce(1): the one-shot.
//!
//! This program is not linked with libvirt, whose fifty shared objects take eight milliseconds to load: `--dev` must send
//! its first frame before that. To look for guests, it executes announced(8), which is linked with it, under the name
//! announce.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    announced::run_announce(None, become_announced)
}

fn become_announced() -> String {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(|path| path.parent());
    let places = beside.into_iter().flat_map(|dir| [dir.join("announced"), dir.join("../sbin/announced")]);
    let mut places = places.chain([PathBuf::from("/usr/sbin/announced")]);
    let Some(program) = places.find(|place| place.is_file()) else {
        return "looking for VMs needs the program announced, which is not installed beside announce".into();
    };
    let error = Command::new(&program).arg0("announce").args(std::env::args_os().skip(1)).exec();
    format!("cannot run {}: {error}", program.display())
}
