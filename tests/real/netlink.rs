//! What the list of devices is worth after the kernel had more to tell than the socket could hold.

use std::process::Command;
use std::time::Duration;

use announced::for_tests::links;
use tokio::runtime::Builder;

use crate::testbed::network::{in_a_network_of_its_own, sh};
use crate::testbed::{DEADLINE, eventually, require};

const OVERRUNS: u32 = 80;
const DEVICES: u32 = 24;

/// Other devices come and go meanwhile, so that dumps are interrupted.
#[test]
fn after_overruns_the_list_of_devices_is_that_of_the_kernel() {
    require!(lab);
    in_a_network_of_its_own(|| {
        sh(&format!("for n in $(seq {DEVICES}); do ip link add d$n type veth peer name e$n; done"));
        let files = [storm("up"), storm("down")];
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let known = runtime.block_on(links::watch()).unwrap();
        let mut overruns = 0;
        for file in files.iter().cycle() {
            if overruns >= OVERRUNS {
                break;
            }
            let file = file.path().display().to_string();
            let mut storm = Command::new("ip").args(["-batch", &file]).spawn().unwrap();
            let mut is_over = false;
            while !is_over {
                // Nothing is read until the kernel has dropped a notification; then, for a while, what there is.
                let before = dropped();
                eventually("an overrun", || {
                    is_over = storm.try_wait().unwrap().is_some();
                    (dropped() > before || is_over).then_some(())
                });
                overruns += u32::from(dropped() > before);
                runtime.block_on(async { tokio::time::sleep(Duration::from_millis(3)).await });
            }
            assert!(storm.wait().unwrap().success());
            let is_right = async {
                // The list in hand is not borrowed while another one is made: its watcher could not write it meanwhile.
                loop {
                    let fresh = links::watch().await.unwrap();
                    if *known.borrow() == *fresh.borrow() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let in_time = runtime.block_on(async { tokio::time::timeout(DEADLINE, is_right).await });
            assert!(in_time.is_ok(), "after {overruns} overruns the list stays wrong: {:#?}", known.borrow());
        }
    });
}

fn storm(last: &str) -> tempfile::NamedTempFile {
    let mut batch = String::new();
    for round in 0..40 {
        batch += &format!("link add x{} type veth peer name y{}\n", round % 8, round % 8);
        for device in 1..=DEVICES {
            batch += &format!("link set d{device} up\nlink set d{device} down\n");
        }
        batch += &format!("link del x{}\n", round % 8);
    }
    (1..=DEVICES).for_each(|device| batch += &format!("link set d{device} {last}\n"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    file
}

/// What the kernel has dropped of the notifications for sockets of this network that hear of devices.
fn dropped() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    rows.filter(|row| row[1] == "0" && row[3] != "00000000").map(|row| row[8].parse::<u64>().unwrap()).sum()
}
