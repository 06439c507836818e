//! Finds guests with libvirt on a read-only connection, and follows their states. Only to have a guest announce itself, a connection is
//! made that may write.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};

use super::sys::libvirt::{EventLoop, Subscription};
use crate::guest::GuestState;
use crate::guest::address::Source;
use crate::guest::domain::Domain;
use crate::guest::event::Change;
use crate::guest::{Absent, Known, Wanted};

mod error;
mod look;
mod self_announcement;
pub(crate) mod watch_guests;

pub(crate) use error::LibvirtError;
use look::{Looker, state_of};
use self_announcement::can_ask;
pub(crate) use self_announcement::{AskGuest, ask_guest};

/// The seconds between keepalive probes to libvirtd, and the number that may stay unanswered.
const KEEPALIVE: (i32, u32) = (5, 3);

/// The receivers of a guest's state changes, by UUID.
type Watchers = Arc<Mutex<HashMap<String, watch::Sender<GuestState>>>>;

/// A guest that runs here.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its XML, addresses and gateways.
    pub known: Known,
    /// Its state.
    pub state: watch::Receiver<GuestState>,
}

/// The result of looking for guests.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The requested guests, in the order of the request.
    pub guests: Vec<Result<Guest, Absent>>,
    /// Keeps their states up to date.
    pub watching: Option<Box<dyn Any + Send>>,
}

/// Finds guests: libvirt's URI (`None` for the default), the wanted guests, and the sources of addresses.
///
/// Blocks. The error is one line for the operator.
pub(crate) type Find = fn(Option<&str>, &Wanted, &[Source]) -> Result<Found, LibvirtError>;

/// The calls of libvirt, for a program that is linked with it.
#[derive(Debug, Clone, Copy)]
pub struct Calls {
    pub(crate) find: Find,
    pub(crate) ask_guest: AskGuest,
    /// Whether the libvirt at this URI can have a guest announce itself. Blocks.
    pub(crate) can_ask: fn(Option<&str>) -> Result<(), LibvirtError>,
}

/// All of them.
pub const CALLS: Calls = Calls { find, ask_guest, can_ask };

/// See [`Find`].
fn find(uri: Option<&str>, wanted: &Wanted, sources: &[Source]) -> Result<Found, LibvirtError> {
    let watchers = Watchers::default();
    let event_loop = EventLoop::start()?;
    let connection = open(uri)?;
    // Subscribe before any state is read, so that no change is missed.
    let subscription = {
        let watchers = watchers.clone();
        Subscription::lifecycle(&connection, move |uuid, _, change| tell(&watchers, uuid, &change))
    };
    let subscription = subscription.map_err(LibvirtError::Listen)?;
    let handles = match wanted {
        Wanted::These(names) => names.iter().map(|name| lookup(&connection, name)).collect::<Vec<_>>(),
        Wanted::All => {
            let running = virt::sys::VIR_CONNECT_LIST_DOMAINS_RUNNING;
            let handles = connection.list_all_domains(running);
            let handles = handles.map_err(LibvirtError::List)?;
            handles.into_iter().map(Ok).collect()
        }
    };
    // A guest that is named twice counts once.
    let mut known = HashSet::new();
    let handles = handles.into_iter().filter(|handle| match handle.as_ref().map(Handle::uuid_string) {
        Ok(Ok(uuid)) => known.insert(uuid),
        _ => true,
    });
    let mut looker = Looker { connection: &connection, sources, privileged: None, uri };
    let guests = handles.map(|handle| guest(&mut looker, &watchers, &handle?)).collect();
    drop(looker);
    let watching = Watching { _subscription: subscription, _connection: connection, _event_loop: event_loop };
    Ok(Found { guests, watching: Some(Box::new(watching)) })
}

/// Keeps the guests' states up to date. The fields are dropped in this order.
struct Watching {
    _subscription: Subscription,
    _connection: Connect,
    _event_loop: EventLoop,
}

/// The URI to use: the given one, that of the environment, or the usual one. libvirt's own default depends on the user.
fn meant(uri: Option<&str>) -> String {
    let default = || std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.is_empty());
    uri.map(str::to_owned).or_else(default).unwrap_or_else(|| "qemu:///system".into())
}

/// Connects read-only.
fn open(uri: Option<&str>) -> Result<Connect, LibvirtError> {
    open_by(Connect::open_read_only, uri)
}

/// Connects with write access, which libvirt grants to root and to users that polkit lets in.
fn open_for_writing(uri: Option<&str>) -> Result<Connect, LibvirtError> {
    open_by(Connect::open, uri)
}

fn open_by(
    open: impl Fn(Option<&str>) -> Result<Connect, Error>,
    uri: Option<&str>,
) -> Result<Connect, LibvirtError> {
    let uri = meant(uri);
    let connection = open(Some(&uri)).map_err(|error| LibvirtError::Connect { uri, error })?;
    // Drivers inside this process refuse keepalive, and cannot hang.
    let _ = connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
    Ok(connection)
}

fn lookup(connection: &Connect, name: &str) -> Result<Handle, Absent> {
    let by_name = connection.lookup_domain_by_name(name);
    let found = by_name.or_else(|error| match connection.lookup_domain_by_uuid_string(name) {
        Ok(handle) => Ok(handle),
        Err(_) => match name.parse() {
            Ok(id) => connection.lookup_domain_by_id(id),
            Err(_) => Err(error),
        },
    });
    found.or_else(|error| match error.code() {
        Enum::Known(ErrorNumber::NoDomain | ErrorNumber::InvalidArg) => lookup_by_nova(connection, name),
        _ => Err(Absent::Unreadable { name: name.into(), why: error.message().into() }),
    })
}

/// The VM with this display name in nova, or with a neutron port of this UUID; running ones take precedence.
fn lookup_by_nova(connection: &Connect, name: &str) -> Result<Handle, Absent> {
    let unreadable = |error: Error| Absent::Unreadable {
        name: name.into(),
        why: format!("cannot list the VMs: {}", error.message()),
    };
    let is_called = |handle: &Handle| {
        let domain = handle.xml_desc(0).ok().and_then(|xml| Domain::parse(&xml).ok());
        domain.is_some_and(|domain| domain.is_called_by_nova(name))
    };
    let mut called = connection.list_all_domains(0).map_err(unreadable)?;
    called.retain(is_called);
    let runs = |handle: &Handle| handle.is_active().unwrap_or(false);
    if called.iter().any(runs) {
        called.retain(runs);
    }
    match called.len() {
        0 | 1 => called.pop().ok_or_else(|| Absent::Unknown(name.into())),
        _ => {
            let mut candidates: Vec<String> = called.iter().filter_map(|handle| handle.name().ok()).collect();
            candidates.sort();
            Err(Absent::Ambiguous { name: name.into(), candidates })
        }
    }
}

fn guest(looker: &mut Looker<'_>, watchers: &Watchers, handle: &Handle) -> Result<Guest, Absent> {
    let name = handle.name().unwrap_or_default();
    let unreadable = |why: &str| Absent::Unreadable { name: name.clone(), why: why.into() };
    let uuid = handle.uuid_string().map_err(|error| unreadable(error.message()))?;
    let (sender, state) = watch::channel(GuestState::Running);
    watchers.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, sender);
    match state_of(handle).map_err(|why| unreadable(&why.to_string()))? {
        GuestState::Running => {
            let known = looker.read(handle).map_err(|why| unreadable(&why.to_string()))?;
            Ok(Guest { known, state })
        }
        GuestState::Paused(state) | GuestState::Left(state) => Err(Absent::NotRunning { name, state }),
    }
}

/// Reports a change of a guest to those that watch it.
fn tell(watchers: &Watchers, uuid: &str, change: &Change) {
    let state = match change {
        Change::Runs(_) | Change::Booted => GuestState::Running,
        Change::Paused | Change::Stops => GuestState::Paused("paused"),
        Change::Left => GuestState::Left("shut off"),
        Change::Arriving(_) | Change::Plugged(_) | Change::Touched(..) => return,
    };
    if let Some(sender) = watchers.lock().unwrap_or_else(PoisonError::into_inner).get(uuid) {
        sender.send_replace(state);
    }
}
