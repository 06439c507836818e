//! Asks libvirt to have guests announce themselves.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::guest::target::Target;
use crate::host::libvirt::{AskGuest, LibvirtError};
use crate::path::attachment;
use crate::run::slots::Slots;

/// Whether libvirt has done so.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<(), LibvirtError>> + Send>>;

/// The number of requests at the same time, for each libvirt: those that hang take no more threads than that.
pub(crate) const MAX_ASKERS: usize = 4;
/// Longer than libvirt takes while many guests arrive. The guest announces itself, if later, all the same.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A libvirt that may be asked.
#[derive(Clone)]
pub(crate) struct GuestAsker(Arc<dyn Fn(String, String) -> Answer + Send + Sync>);

impl GuestAsker {
    /// The libvirt that `ask` asks about a guest, by its UUID, and a NIC.
    pub(crate) fn new(ask: impl Fn(String, String) -> Answer + Send + Sync + 'static) -> GuestAsker {
        GuestAsker(Arc::new(ask))
    }

    /// The libvirt at `uri`, which is asked on threads of their own.
    pub(crate) fn of_libvirt(ask: AskGuest, uri: Option<String>) -> GuestAsker {
        let slots = Slots::new(MAX_ASKERS);
        GuestAsker::new(move |uuid, nic| {
            let (slots, uri) = (slots.clone(), uri.clone());
            Box::pin(async move {
                let asked = slots.run(move || ask(uri.as_deref(), &uuid, &nic)).await;
                asked.unwrap_or_else(|error| Err(LibvirtError::Interrupted(error)))
            })
        })
    }

    /// Asks for this NIC. `None`: libvirt does not have it. The sub-ports of a trunk are announced with their parent: a VLAN device of
    /// Linux follows its lower device.
    pub(crate) fn ask(&self, target: &Target) -> Option<Answer> {
        let uuid = target.domain.as_ref()?.uuid.to_string();
        let device = target.plug.device.clone();
        if device.as_deref().is_some_and(attachment::is_sub_ports) {
            return None;
        }
        // Two NICs may have one MAC address, and some have no device.
        let answer = self.0(uuid, device.unwrap_or_else(|| target.mac.to_string()));
        let no_answer = |_| Err(LibvirtError::NoAnswer(ANSWER_TIMEOUT));
        Some(Box::pin(async move { timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(no_answer) }))
    }
}

/// The same libvirt.
impl PartialEq for GuestAsker {
    fn eq(&self, other: &GuestAsker) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for GuestAsker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestAsker")
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::mpsc;

    use pnet_base::MacAddr;

    use super::*;
    use crate::guest::target::{DomainId, Plug};

    fn target(device: Option<&str>) -> Target {
        let plug = Plug { device: device.map(str::to_owned), ..Plug::default() };
        let domain = Some(DomainId { name: "web1".into(), uuid: "u".into() });
        Target { domain, ..Target::of_device(plug, MacAddr(0x52, 0x54, 0, 0, 0, 1)) }
    }

    #[test]
    fn a_nic_is_asked_for_by_its_device_or_its_mac() {
        let (to, asked) = mpsc::channel();
        let asker = GuestAsker::new(move |uuid, nic| {
            to.send((uuid, nic)).unwrap();
            Box::pin(ready(Ok(())))
        });
        let unasked = [target(Some("spi-567a450a-b0")), Target { domain: None, ..target(Some("tap0")) }];
        assert!(unasked.iter().all(|target| asker.ask(target).is_none()), "libvirt does not have these");
        for device in [Some("vnet3"), None] {
            assert!(asker.ask(&target(device)).is_some());
        }
        let asked: Vec<(String, String)> = asked.try_iter().collect();
        assert_eq!(asked, [("u".into(), "vnet3".into()), ("u".into(), "52:54:00:00:00:01".into())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_hangs_is_not_waited_for() {
        let asker = GuestAsker::new(|_, _| Box::pin(std::future::pending()));
        let answer = asker.ask(&target(Some("vnet3"))).unwrap().await;
        assert!(matches!(answer, Err(LibvirtError::NoAnswer(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn requests_that_hang_take_a_few_threads_and_no_more() {
        fn hang(_: Option<&str>, _: &str, _: &str) -> Result<(), LibvirtError> {
            HANGING.fetch_add(1, SeqCst);
            while !GO_ON.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
        static HANGING: AtomicUsize = AtomicUsize::new(0);
        static GO_ON: AtomicBool = AtomicBool::new(false);
        let asker = GuestAsker::of_libvirt(hang, None);
        let answers: Vec<_> =
            (0..2 * MAX_ASKERS).map(|_| tokio::spawn(asker.ask(&target(Some("vnet3"))).unwrap())).collect();
        while HANGING.load(SeqCst) < MAX_ASKERS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(HANGING.load(SeqCst), MAX_ASKERS);
        GO_ON.store(true, SeqCst);
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
    }
}
