//! `announce`: the one-shot.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::announcement::progress::Outcome;
use crate::cli::args::{Announce, Whom};
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, json, print};
use crate::cli::pause;
use crate::cli::select::Start;
use crate::daemon::history::{self, History};
use crate::guest::{GuestState, Wanted};
use crate::host::pcap::Pcap;
use crate::report::Report;
use crate::run::announcer;
use crate::run::host::Host;
use crate::run::order::Order;
use crate::run::signals::{Signals, Stop};

/// Announces the selected NICs for an event at `began`, and prints a report of each.
///
/// # Errors
///
/// The host or libvirt cannot be read, or the capture file cannot be created.
pub(super) async fn run(start: Start, args: &Announce, began: Instant) -> Result<Status, Problem> {
    let (host, orders) = start.gather().await?;
    let pcap = args.pcap.as_deref().map(|path| {
        let failed = |error| (Status::Failed, format!("cannot write {}: {error}", path.display()));
        Pcap::create(path, began).map(|pcap| Arc::new(Mutex::new(pcap))).map_err(failed)
    });
    let pcap = pcap.transpose()?;
    if !args.quiet {
        tell_of_no_device(&host, args);
    }
    if !args.quiet && !args.dry_run {
        pause::tell_of_pause();
    }
    let mut status = orders.print_absent().max(orders.print_refused(&args.output));
    let nothing = orders.orders.is_empty() && orders.refused.is_empty() && orders.absent.is_empty();
    let (mut running, host) = (JoinSet::new(), Arc::new(host));
    let directed = orders.orders.into_iter().map(|(order, guest)| {
        let order = Order { pcap: pcap.clone(), ..order }.with(|settings| settings.dry_run = args.dry_run);
        let state = *guest.borrow();
        (Signals::new(Arc::new(order), state, began), guest)
    });
    let directed: Vec<_> = directed.collect();
    // Spawned before the announcements, which run in the order of spawning: the first line of output may provoke a signal.
    let all: Vec<Signals> = directed.iter().map(|(signals, _)| signals.clone()).collect();
    tokio::spawn(async move {
        interrupted().await;
        all.iter().for_each(|signals| signals.stop(Stop::Interrupted));
    });
    for (signals, guest) in directed {
        tokio::spawn(follow(guest, signals.clone()));
        running.spawn(announcer::announce(host.clone(), signals, began));
    }
    if nothing {
        complain(match args.nics.whom() {
            Whom::Guests(Wanted::All) => "nothing to announce: no VM with a NIC is running here",
            _ => "nothing to announce: none of the selected VMs has a NIC",
        });
    }
    while let Some(report) = running.join_next().await {
        status = status.max(match report {
            Ok(report) => publish(&report, args),
            Err(error) => {
                complain(&format!("an announcement was interrupted: {error}"));
                Status::Failed
            }
        });
    }
    Ok(status)
}

/// A device that does not exist is waited for, and its name may be a mistake: both are told at once.
fn tell_of_no_device(host: &Host, args: &Announce) {
    let Whom::Device(device, _) = args.nics.whom() else {
        return;
    };
    let is_there =
        host.links.borrow().named(&device).is_some() || host.ovs.borrow().ovs.named(&device).is_some();
    if !is_there && args.wait.is_none_or(|wait| !wait.is_zero()) {
        complain(&format!("{device} does not exist; waiting for it (--wait 0 looks once)"));
    }
}

/// Tells an announcement what becomes of its guest; one without a guest (--dev) has none.
async fn follow(mut guest: watch::Receiver<GuestState>, signals: Signals) {
    while guest.changed().await.is_ok() {
        signals.guest_is(*guest.borrow_and_update());
    }
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}

/// Prints a report: an announcement to standard output, a failure as one line to standard error.
fn publish(report: &Report, args: &Announce) -> Status {
    if !report.dry_run {
        // Only root can, and the announcement does not depend on it.
        let _ = History::here().add(&history::ended(report));
    }
    let printed = if args.output.json { print(&json(report, &args.output)) } else { Status::Announced };
    let status = match report.outcome {
        Outcome::Announced => Status::Announced,
        Outcome::NotReady if report.lacks_only("no-ovsdb") => Status::Failed,
        Outcome::NotReady => Status::NotReady,
        Outcome::Cancelled | Outcome::Superseded | Outcome::Failed => Status::Failed,
    };
    let unheard = report.unheard();
    match status {
        Status::Announced => {
            let told = if args.output.json || args.quiet { printed } else { print(&report.to_string()) };
            unheard.map_or(told, |why| {
                complain(&why);
                Status::Failed
            })
        }
        _ => {
            complain(&report.failure());
            // What has left before the end stays true.
            let has_left = report.rounds > 0 && !args.output.json && !args.quiet;
            let told = if has_left { print(&report.to_string()) } else { Status::Announced };
            status.max(printed).max(told)
        }
    }
}
