//! From the command line and the guests to what is to be announced.

use tokio::sync::watch;

use crate::cli::args::{Announce, Whom};
use crate::cli::exit::{Problem, Status};
use crate::config::Config;
use crate::guest::GuestState;
use crate::guest::target::{self, Plug, Target, Unannounceable};
use crate::guest::{Absent, Wanted};
use crate::host::libvirt::{Find, Guest};
use crate::run::order::Order;

/// Whether a guest runs.
type State = watch::Receiver<GuestState>;

/// What is to be announced, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// An order for each NIC.
    pub orders: Vec<(Order, State)>,
    /// NICs that the host cannot speak for.
    pub refused: Vec<Unannounceable>,
    /// VMs that were asked for and cannot be announced.
    pub absent: Vec<Absent>,
    /// What keeps the guests' states up to date.
    _watching: Option<Box<dyn std::any::Any + Send>>,
}

/// Whether the guests must be looked for.
pub(super) fn needs_libvirt(args: &Announce) -> bool {
    matches!(args.whom(), Whom::Guests(_))
}

/// Finds everybody that `args` mean.
pub(super) async fn gather(
    args: &Announce,
    config: &Config,
    find: Option<Find>,
) -> Result<Selection, Problem> {
    let mut orders = match args.whom() {
        Whom::Device(device, mac) => {
            let plug = Plug { device: Some(device), ..Plug::default() };
            let target = Target::of_device(plug, mac);
            Selection {
                orders: vec![(Order::new(target, config, &args.ips, args.vlan), unwatched())],
                ..Selection::default()
            }
        }
        Whom::Guests(wanted) => guests(wanted, args, config, find).await?,
    };
    orders.refused.retain(|nic| args.mac.is_none_or(|mac| nic.mac == Some(mac)));
    // Also those that cannot be announced: the address may have been meant for one of them.
    let others = if args.mac.is_none() { orders.refused.len() + orders.absent.len() } else { 0 };
    let count = orders.orders.len() + others;
    if count > 1 && (!args.ips.is_empty() || args.vlan.is_some()) {
        let why = format!("--ip and --vlan are for one NIC, and {count} are meant: choose one with --mac");
        return Err((Status::Usage, why));
    }
    if let (true, true, true, Some(mac)) =
        (orders.orders.is_empty(), orders.refused.is_empty(), orders.absent.is_empty(), args.mac)
    {
        return Err((Status::Failed, format!("no NIC has the MAC address {mac}")));
    }
    Ok(orders)
}

async fn guests(
    wanted: Wanted,
    args: &Announce,
    config: &Config,
    find: Option<Find>,
) -> Result<Selection, Problem> {
    let find = find.ok_or_else(|| (Status::Failed, "this program cannot ask libvirt".to_owned()))?;
    let (uri, sources) = (config.libvirt.uri.clone(), config.addresses.sources.clone());
    let found = tokio::task::spawn_blocking(move || find(uri.as_deref(), &wanted, &sources)).await;
    let found = found.unwrap_or_else(|error| Err(format!("asking libvirt broke off: {error}")));
    let found = found.map_err(|why| (Status::Failed, why))?;
    let mut orders = Selection { _watching: Some(found.watching), ..Selection::default() };
    for guest in found.guests {
        match guest {
            Ok(guest) => nics(guest, args, config, &mut orders),
            Err(absent) => orders.absent.push(absent),
        }
    }
    Ok(orders)
}

fn nics(Guest { known, state }: Guest, args: &Announce, config: &Config, orders: &mut Selection) {
    let mut addresses = known.addresses.into_iter();
    for nic in target::of(&known.domain) {
        let learned = addresses.next().unwrap_or_default();
        match nic {
            Ok(mut target) if args.mac.is_none_or(|mac| mac == target.mac) => {
                target.addresses.extend(learned);
                orders.orders.push((Order::new(target, config, &args.ips, args.vlan), state.clone()));
            }
            Ok(_) => {}
            Err(refused) => orders.refused.push(refused),
        }
    }
}

/// Nobody watches the guest behind a device that was named.
fn unwatched() -> State {
    watch::channel(GuestState::Running).1
}
