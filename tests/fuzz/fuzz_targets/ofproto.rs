//! The answers of ovs-vswitchd to ofproto/trace, dpif/show and fdb/show: every sentence is one line, and their sizes are bounded.
#![no_main]

use announced::for_tests::fdb_show;
use announced::for_tests::ofproto_trace::verdict;
use announced_fuzz::is_one_line;
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;

const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);

fuzz_target!(|answer: &str| {
    let (trace, ports) = answer.split_once("\n%\n").unwrap_or((answer, answer));
    let in_any = fdb_show::learned(trace, MAC, None);
    for vlan in [0, 100] {
        let in_this = fdb_show::learned(trace, MAC, Some(vlan));
        assert!(in_this.is_none() || in_any.is_some(), "an entry of VLAN {vlan} is an entry");
    }
    let Some(verdict) = verdict(trace, "br-int", ports) else {
        return assert!(!trace.lines().any(|line| line.starts_with("Datapath actions: ")));
    };
    assert!(verdict.ends.len() <= 64 && verdict.outputs.len() <= 10_000);
    for line in verdict.ends.iter().map(|end| &end.line).chain([&verdict.deciding]) {
        assert!(is_one_line(line) && line.chars().count() < 20_000, "{line:?}");
    }
    for output in &verdict.outputs {
        assert!(is_one_line(&output.to_string()) && output.port.chars().count() <= 301, "{output:?}");
    }
});
