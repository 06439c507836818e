//! From the command line and the guests to orders.

use tokio::sync::watch;

use crate::cli::args::{Nics, Output, Whom};
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, json, print};
use crate::config::Config;
use crate::guest::Absent;
use crate::guest::address::Source;
use crate::guest::event::Cause;
use crate::guest::target::{Plug, Target, Unannounceable};
use crate::guest::{GuestState, Wanted};
use crate::host::libvirt::{Calls, Find, Found, Guest};
use crate::path::link::Links;
use crate::path::ovs::Ovs;
use crate::path::uplinks::Uplinks;
use crate::report::Report;
use crate::run::guest_asker::GuestAsker;
use crate::run::host::Host;
use crate::run::link_query::{self, LinkQuery};
use crate::run::order::Order;
use crate::run::targets;

/// Whether a guest runs.
type State = watch::Receiver<GuestState>;

/// The selected NICs and VMs.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// An order for each NIC.
    pub orders: Vec<(Order, State)>,
    /// NICs that the host cannot announce.
    pub refused: Vec<Unannounceable>,
    /// Requested VMs that cannot be announced.
    pub absent: Vec<Absent>,
    /// Keeps the guests' states up to date.
    watching: Option<Box<dyn std::any::Any + Send>>,
}

/// The selection, and where to look for it.
pub(super) struct Start {
    nics: Nics,
    config: Config,
    libvirt: Option<Calls>,
}

impl Start {
    /// The sources of addresses that are asked.
    pub(super) fn sources(&self) -> Vec<Source> {
        self.config.addresses.sources.clone()
    }

    /// For the NICs `nics` under `config`; if libvirt is needed and this program is not linked with it, `become_linked` replaces the
    /// program.
    ///
    /// # Errors
    ///
    /// The program that is linked with libvirt cannot be started.
    pub(super) fn new(
        nics: &Nics,
        config: Config,
        libvirt: Option<Calls>,
        become_linked: fn() -> String,
    ) -> Result<Start, Problem> {
        if matches!(nics.whom(), Whom::Guests(_)) && libvirt.is_none() {
            return Err((Status::Failed, become_linked()));
        }
        Ok(Start { nics: nics.clone(), config, libvirt })
    }

    /// Why libvirt cannot have a guest announce itself, if it shall and cannot.
    pub(super) async fn cannot_ask(&self) -> Option<String> {
        let libvirt = self.libvirt.filter(|_| self.config.libvirt.ask_guest)?;
        let uri = self.config.libvirt.uri.clone();
        let can_ask = tokio::task::spawn_blocking(move || (libvirt.can_ask)(uri.as_deref())).await.ok()?;
        can_ask.err().map(|why| why.to_string())
    }

    /// Begins to watch the host, and finds the selected NICs.
    ///
    /// # Errors
    ///
    /// The host's devices or libvirt cannot be read, or the options do not fit the result.
    pub(super) async fn gather(self) -> Result<(Host, Selection), Problem> {
        let (host, selection) = self.look_around().await?;
        Ok((host, selection?))
    }

    /// The same, where the host is of use even without libvirt.
    ///
    /// # Errors
    ///
    /// The host's devices cannot be read, or the device of `--dev` is no guest's.
    pub(super) async fn look_around(self) -> Result<(Host, Result<Selection, Problem>), Problem> {
        let Start { nics, config, libvirt } = &self;
        let find = libvirt.map(|libvirt| libvirt.find);
        let (host, found) = tokio::join!(Host::watch(config), look(nics, config, find));
        let (host, _) = host.map_err(|error| (Status::Failed, error.to_string()))?;
        if let Whom::Device(device, _) = nics.whom() {
            let other =
                not_a_guests(&device, &host.links.borrow(), &host.ovs.borrow().ovs, &config.path.uplinks);
            other.map_or(Ok(()), |what| {
                Err((Status::Failed, format!("--dev {device} is {what}, not a guest's port")))
            })?;
        }
        let asker = libvirt.filter(|_| config.libvirt.ask_guest);
        let asker =
            asker.map(|libvirt| GuestAsker::of_libvirt(libvirt.ask_guest, config.libvirt.uri.clone()));
        let mut selection = found.and_then(|found| choose(nics, config, found, &host.ovs.borrow().ovs));
        let link_query = find.map(|find| link_query(find, config));
        for (order, _) in selection.iter_mut().flat_map(|selection| &mut selection.orders) {
            let link_query = link_query.clone().filter(|_| order.target.domain.is_some());
            order.change(|settings| (settings.link_query, settings.ask_guest) = (link_query, asker.clone()));
        }
        Ok((host, selection))
    }
}

impl Selection {
    /// Prints a line for each VM that cannot be announced.
    pub(super) fn print_absent(&self) -> Status {
        self.absent.iter().for_each(|guest| complain(&guest.to_string()));
        if self.absent.is_empty() { Status::Announced } else { Status::NoVm }
    }

    /// Prints a line for each NIC that can never be announced, which is no failure.
    pub(super) fn print_refused(&self, output: &Output) -> Status {
        let reports = self.refused.iter().map(|refused| Report::refused(refused, Cause::Asked));
        let told = reports.map(|report| {
            complain(&format!(
                "{}: not announced: {}",
                report.subject(),
                report.error.as_deref().unwrap_or_default()
            ));
            if output.json { print(&json(&report, output)) } else { Status::Announced }
        });
        told.max().unwrap_or(Status::Announced)
    }
}

/// Looks for the guests that `args` select; `None` if they name a device.
async fn look(args: &Nics, config: &Config, find: Option<Find>) -> Result<Option<Found>, Problem> {
    let Whom::Guests(wanted) = args.whom() else {
        return Ok(None);
    };
    let find = find.ok_or_else(|| (Status::Failed, "this program is not linked with libvirt".to_owned()))?;
    let (uri, sources) = (config.libvirt.uri.clone(), config.addresses.sources.clone());
    let found = tokio::task::spawn_blocking(move || find(uri.as_deref(), &wanted, &sources)).await;
    let found = found
        .map_err(|error| (Status::Failed, format!("the request to libvirt was interrupted: {error}")))?;
    found.map(Some).map_err(|error| (Status::Failed, error.to_string()))
}

/// Looks for a guest anew, whose link is down.
fn link_query(find: Find, config: &Config) -> LinkQuery {
    let uri = config.libvirt.uri.clone();
    LinkQuery::new(move |target| {
        let uri = uri.clone();
        let ask = move || {
            let uuid = target.domain.as_ref()?.uuid.clone();
            let guest =
                find(uri.as_deref(), &Wanted::These(vec![uuid.to_string()]), &[]).ok()?.guests.pop()?;
            link_query::is_up(&guest.ok()?.known.domain, &target)
        };
        Box::pin(async move { tokio::task::spawn_blocking(ask).await.ok()? })
    })
}

/// Makes orders for everything that `args` select: guests that were found, or the device.
fn choose(args: &Nics, config: &Config, found: Option<Found>, ovs: &Ovs) -> Result<Selection, Problem> {
    let mut orders = Selection::default();
    match args.whom() {
        Whom::Device(device, mac) => {
            let plug = Plug { device: Some(device), ..Plug::default() };
            match targets::unless_left_out(Target::of_device(plug, mac), config) {
                Ok(target) => {
                    orders.orders.push((
                        Order::new(target, config, &args.ips, args.vlan).asking(&args.asks),
                        unwatched(),
                    ));
                }
                Err(left_out) => orders.refused.push(left_out),
            }
        }
        Whom::Guests(_) => {
            let found = found.unwrap_or_default();
            orders.watching = found.watching;
            for guest in found.guests {
                match guest {
                    Ok(guest) => nics(guest, args, config, ovs, &mut orders),
                    Err(absent) => orders.absent.push(absent),
                }
            }
        }
    }
    orders.refused.retain(|nic| args.mac.is_none_or(|mac| nic.mac == Some(mac)));
    is_for_one(args, &orders)?;
    let forbidden = orders.orders.iter().find_map(|(order, _)| {
        let ip = args.ips.iter().find(|ip| !config.permits(&order.target, **ip))?;
        Some(format!("--ip {ip}: the configuration excludes it (never, within)"))
    });
    forbidden.map_or(Ok(orders), |why| Err((Status::Usage, why)))
}

/// --ip and --vlan belong to exactly one NIC.
fn is_for_one(args: &Nics, orders: &Selection) -> Result<(), Problem> {
    // NICs that cannot be announced count, too: the address may belong to one of them.
    let others = if args.mac.is_none() { orders.refused.len() + orders.absent.len() } else { 0 };
    let count = orders.orders.len() + others;
    if count > 1 && (!args.ips.is_empty() || args.vlan.is_some()) {
        let why =
            format!("--ip and --vlan apply to one NIC, but {count} are selected: choose one with --mac");
        return Err((Status::Usage, why));
    }
    if let (true, true, true, Some(mac)) =
        (orders.orders.is_empty(), orders.refused.is_empty(), orders.absent.is_empty(), args.mac)
    {
        return Err((Status::Failed, format!("no NIC has the MAC address {mac}")));
    }
    Ok(())
}

fn nics(Guest { known, state }: Guest, args: &Nics, config: &Config, ovs: &Ovs, orders: &mut Selection) {
    for nic in targets::of(known, config, ovs) {
        match nic.target {
            Ok(target) if args.mac.is_none_or(|mac| mac == target.mac) => {
                let order = Order::new(target, config, &args.ips, args.vlan).asking(&args.asks);
                orders.orders.push((order, state.clone()));
            }
            Ok(_) => {}
            Err(refused) => orders.refused.push(refused),
        }
    }
}

/// What a device is that certainly belongs to no guest: frames that enter by it as a guest's are dropped, or do harm.
fn not_a_guests(device: &str, links: &Links, ovs: &Ovs, uplinks: &Uplinks) -> Option<String> {
    let link = links.named(device);
    let is_bond =
        link.and_then(|link| link.kind.as_deref()).is_some_and(|kind| matches!(kind, "bond" | "team"));
    let patch = ovs.named(device).filter(|row| row.interface.kind == "patch");
    if link.is_some_and(|link| link.bridge.is_some()) || ovs.bridges.values().any(|b| b.name == device) {
        return Some("a bridge".into());
    }
    if uplinks.has(device) {
        return Some("an uplink of this host (path.uplinks)".into());
    }
    if is_bond || link.is_some_and(|link| link.has_hardware && !link.is_representor) {
        return Some("a NIC of this host".into());
    }
    patch.map(|row| format!("a patch port of {}", row.bridge.name))
}

/// For --dev, libvirt is not asked about the guest.
fn unwatched() -> State {
    watch::channel(GuestState::Running).1
}
