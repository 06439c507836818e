//! announced(8): the daemon; and announce(1), when it is called so, where libvirt is needed.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if name.to_string_lossy().ends_with("announce") {
        return announced::oneshot::main(Some(announced::host::libvirt::find), || {
            "this program cannot ask libvirt".into()
        });
    }
    eprintln!("announced: the daemon is not there yet: use announce --vm NAME");
    ExitCode::FAILURE
}
