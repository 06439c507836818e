//! Other ways to run libvirt than the one daemon of the system: the modular daemons, a user's session.

use crate::testbed::daemon::QUICK;
use crate::testbed::{Attachment, Daemon, Host, Place, Site, linux_bridge, require};

#[test]
fn the_socket_of_virtqemud_is_enough() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    // Debian packages no virtqemud. To a client it is this: the same protocol, on a socket of that name. The one that may
    // write is left to virsh.
    site.host.sh("mv /run/libvirt/libvirt-sock-ro /run/libvirt/virtqemud-sock-ro");
    let run = site.host.announce(&["--vm", "web1", "--count", "1"]);
    assert_eq!(run.code, Some(0), "{run:#?}");

    let daemon = Daemon::start(&site.host, QUICK);
    site.save();
    site.restore("");

    assert_eq!(daemon.reports(1)[0]["outcome"], "announced");
}

#[test]
fn a_guest_of_a_users_session() {
    require!(lab, libvirt, tshark);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    // The user's own libvirtd, started by virsh; the tap is made for it, since it may not make one.
    host.sh("mknod -m 666 /run/tun c 10 200; mount --bind /run/tun /dev/net/tun
         install -d -o nobody /run/user/nobody /run/nobody
         ip tuntap add tap0 mode tap user nobody; ip link set tap0 master br0 up
         echo \"<domain type='qemu'><name>mine</name><memory unit='MiB'>16</memory>
             <os><type arch='x86_64' machine='pc'>hvm</type></os>
             <devices><interface type='ethernet'><mac address='52:54:00:00:00:01'/><target dev='tap0' managed='no'/>
             <model type='virtio'/><rom enabled='no'/></interface></devices></domain>\" >/run/mine.xml
         XDG_RUNTIME_DIR=/run/user/nobody HOME=/run/nobody setpriv --reuid nobody --clear-groups \
             virsh --quiet --connect qemu:///session create /run/mine.xml");
    let mine = ["--vm", "mine", "--ip", "192.0.2.9", "--count", "1"];
    let run = host.announce(&mine);
    assert_eq!(run.code, Some(4), "the system's libvirt does not have it: {run:#?}");

    let session = "qemu:///session?socket=/run/user/nobody/libvirt/libvirt-sock";
    let run = host.announce(&[&mine[..], &["--connect", session]].concat());

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("mine tap0 52:54:00:00:00:01: announced"), "{run:#?}");
}
