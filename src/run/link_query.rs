//! Asks libvirt again whether a NIC's link is up: it tells no event when an operator sets that.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::guest::domain::Domain;
use crate::guest::target::Target;

/// The answer; `None` where there is none.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Option<bool>> + Send>>;

/// For a minute the pause between questions is short, and then long: a link may stay down for years.
const PAUSE: Duration = Duration::from_millis(500);
const LONG_PAUSE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// A libvirt that may be asked.
#[derive(Clone)]
pub(crate) struct LinkQuery(Arc<dyn Fn(Arc<Target>) -> Answer + Send + Sync>);

impl LinkQuery {
    /// The libvirt that `ask` asks about a NIC.
    pub(crate) fn new(ask: impl Fn(Arc<Target>) -> Answer + Send + Sync + 'static) -> LinkQuery {
        LinkQuery(Arc::new(ask))
    }

    /// Asks for this NIC after a pause; its link has been waited for since `waited`.
    pub(crate) fn ask(&self, target: Arc<Target>, waited: Duration) -> Answer {
        let (ask, pause) = (self.0.clone(), if waited < MINUTE { PAUSE } else { LONG_PAUSE });
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            ask(target).await
        })
    }
}

/// The same libvirt.
impl PartialEq for LinkQuery {
    fn eq(&self, other: &LinkQuery) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for LinkQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkQuery")
    }
}

/// Whether the link of `target` is up by what its domain says now.
pub(crate) fn is_up(domain: &Domain, target: &Target) -> Option<bool> {
    let is_it = |device: &Option<String>| device.is_none() || *device == target.plug.device;
    let nic = domain.interfaces.iter().find(|nic| nic.mac == Some(target.mac) && is_it(&nic.device))?;
    Some(!nic.link_down)
}
