//! Open vSwitch in a namespace (`contrib/lab/host`), with the guest's tap, and tcpdump beyond the uplink.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::sched::{CloneFlags, setns};

use super::{MAC, TAP};
use crate::host::sys;

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab");

#[path = "../../../tests/testbed/need.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, unused_macros, reason = "only part of it is used here")]
mod need;

/// Whether this machine has what a test needs; says so if not, and panics if it must.
pub(crate) fn has(needs: &[&str]) -> bool {
    need::met(needs)
}

/// The host. It ends with this.
pub(crate) struct Node {
    host: Child,
    directory: PathBuf,
    /// The tap has a carrier for as long as this is held.
    guest: Option<OwnedFd>,
    /// tcpdump, which writes a line for each frame.
    witness: Option<Child>,
    /// A transaction that waits until ovs-vswitchd has carried it out.
    counted: Mutex<Option<Child>>,
}

impl Node {
    /// With the bridge and its uplink.
    pub(super) fn start() -> Node {
        let directory = tempfile::Builder::new().prefix("announced-testbed-").tempdir().unwrap().keep();
        let mut host = Command::new(format!("{LAB}/host"));
        // "--remove" removes the directory, also after a test that was killed.
        let host =
            host.args(["--remove", "--ovs"]).arg(&directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut host = host.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(host.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the host did not start");
        Node { host, directory, guest: None, witness: None, counted: Mutex::default() }
    }

    /// Enters its network namespace with the calling thread, and plugs the tap, as os-vif does.
    pub(super) fn entered(mut self) -> Node {
        let pid = std::fs::read_to_string(self.directory.join("pid")).unwrap();
        let network = File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        self.guest = Some(sys::tap(TAP).unwrap().0);
        self.sh(&format!(
            "ip link set {TAP} up
             ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev -- add-port br-int up0 -- add-port br-int {TAP} \
                 -- set Interface {TAP} external_ids:iface-id={TAP} external_ids:attached-mac={MAC}"
        ));
        self.witness = Some(self.watch());
        self
    }

    fn watch(&self) -> Child {
        let lines = File::create(self.lines()).unwrap();
        let filter = format!("ether src {MAC}");
        let mut tcpdump = self.enter("ip");
        tcpdump.args([
            "netns",
            "exec",
            "wire",
            "tcpdump",
            "-i",
            "wire0",
            "-e",
            "-n",
            "-l",
            "--immediate-mode",
            &filter,
        ]);
        let mut tcpdump = tcpdump.stdout(lines).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("listening on")), "tcpdump does not listen");
        tcpdump
    }

    fn lines(&self) -> PathBuf {
        self.directory.join("run/wire.txt")
    }

    /// OVSDB's socket, as seen from outside.
    pub(super) fn ovsdb(&self) -> PathBuf {
        self.directory.join("run/openvswitch/db.sock")
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new(format!("{LAB}/enter"));
        command.arg(&self.directory).arg(program).stdin(Stdio::null());
        command
    }

    fn sh(&self, script: &str) {
        let run = self.enter("sh").args(["-euc", script]).output().unwrap();
        assert!(run.status.success(), "{script}\n{}", String::from_utf8_lossy(&run.stderr));
    }

    /// The same beside the test's tasks.
    async fn sh_beside(&self, script: String) {
        let run =
            self.enter("sh").args(["-euc", &script]).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        let ended = tokio::task::spawn_blocking(move || run?.wait()).await.unwrap();
        assert!(ended.unwrap().success(), "{script}");
    }

    pub(super) async fn commit(&self, tag: Option<u16>, counted: bool) {
        self.hang(true).await;
        let set = match tag {
            Some(tag) => format!("set Port {TAP} tag={tag}"),
            None => format!("clear Port {TAP} tag"),
        };
        if !counted {
            return self.sh_beside(format!("ovs-vsctl --no-wait {set}")).await;
        }
        // It waits for ovs-vswitchd after the commit.
        let waiting = self.enter("sh").args(["-euc", &format!("ovs-vsctl {set}")]).spawn().unwrap();
        assert!(self.counted.lock().unwrap().replace(waiting).is_none(), "one transaction at a time");
        let tag = tag.map_or("[]".to_owned(), |tag| tag.to_string());
        let committed = format!(r#"[ "$(ovs-vsctl --no-wait get Port {TAP} tag)" = "{tag}" ]"#);
        self.sh_beside(format!("until {committed}; do sleep 0.01; done")).await;
    }

    pub(super) async fn carry_out(&self) {
        self.hang(false).await;
        let waiting = self.counted.lock().unwrap().take();
        if let Some(mut waiting) = waiting {
            let ended = tokio::task::spawn_blocking(move || waiting.wait()).await.unwrap();
            assert!(ended.unwrap().success());
        }
    }

    pub(super) async fn lose(&self, loses: bool) {
        let flow = format!("dl_src={MAC}");
        self.sh_beside(match loses {
            true => format!("ovs-ofctl add-flow br-int priority=10,{flow},actions=drop"),
            false => format!("ovs-ofctl del-flows br-int {flow}"),
        })
        .await;
    }

    /// Stops ovs-vswitchd, or lets it go on.
    pub(super) async fn hang(&self, hangs: bool) {
        let signal = if hangs { "STOP" } else { "CONT" };
        self.sh_beside(format!("kill -{signal} $(cat /run/openvswitch/ovs-vswitchd.pid)")).await;
    }

    pub(super) fn left(&self) -> Vec<Option<u16>> {
        let text = std::fs::read_to_string(self.lines()).unwrap();
        // The last line may not be complete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // `… ethertype 802.1Q (0x8100), length 46: vlan 100, p 0, ethertype ARP …`
        let vlan = |line: &str| line.split_once(": vlan ")?.1.split(',').next()?.parse().ok();
        whole.lines().map(vlan).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in [self.witness.take(), self.counted.lock().unwrap().take()].into_iter().flatten() {
            let mut child = child;
            let _ = child.kill();
            let _ = child.wait();
        }
        // It ends with its standard input.
        drop(self.host.stdin.take());
        let _ = self.host.wait();
    }
}
