//! What the `virt` crate lacks: domain events, and the leases of a network.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use virt::connect::Connect;
use virt::error::Error;
use virt::network::Network;
use virt::sys;

/// A lifecycle event: the domain's UUID, and libvirt's number for what happened (`virDomainEventType`).
type Handler = Box<dyn Fn(&str, i32) + Send + Sync>;

/// Starts libvirt's event loop, once in the life of the process; must come before the first connection.
pub fn start_event_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        // Otherwise libvirt prints its errors itself.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|error| error.message().to_owned())?;
        let run = || while virt::event::event_run_default_impl().is_ok() {};
        std::thread::Builder::new().name("libvirt".into()).spawn(run).map(drop).map_err(|e| e.to_string())
    };
    STARTED.get_or_init(start).clone()
}

/// A subscription to lifecycle events, for as long as it lives.
pub struct Subscription {
    connection: Connect,
    id: c_int,
}

impl Subscription {
    /// Calls `handler` on libvirt's thread whenever a domain of the connection starts, stops, pauses or resumes.
    pub fn new(
        connection: &Connect,
        handler: impl Fn(&str, i32) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let handler: Handler = Box::new(handler);
        // Boxed once more: C takes a thin pointer.
        let opaque = Box::into_raw(Box::new(handler)).cast::<c_void>();
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        // SAFETY: libvirt's own VIR_DOMAIN_EVENT_CALLBACK() cast; for this event id it calls the pointer back with
        // the arguments of `Lifecycle`.
        let callback = unsafe {
            std::mem::transmute::<
                Lifecycle,
                unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
            >(on_lifecycle)
        };
        // SAFETY: the connection is open; the callback and the function that frees `opaque` fit what it points to.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection.as_ptr(),
                std::ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(callback),
                opaque,
                Some(free_handler),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt frees `opaque` only after a success; it is still the box made above.
            unsafe { free_handler(opaque) };
            return Err(error);
        }
        Ok(Subscription { connection: connection.clone(), id })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: the connection is still open, as this holds a reference, and the id is its own.
        unsafe { sys::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), self.id) };
    }
}

/// # Safety
///
/// `opaque` must be the pointer that [`Subscription::new`] gave to libvirt, `domain` null or valid.
unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the buffer has the length that libvirt documents for a UUID's text.
    if domain.is_null() || unsafe { sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) } < 0 {
        return 0;
    }
    // SAFETY: libvirt has written a text with its zero byte.
    let uuid = unsafe { CStr::from_ptr(uuid.as_ptr()) };
    // SAFETY: see above; libvirt frees the handler only when it calls it no more.
    let handler = unsafe { &*opaque.cast::<Handler>() };
    // A panic must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| handler(&uuid.to_string_lossy(), event)));
    0
}

/// # Safety
///
/// `opaque` must come from `Box::into_raw(Box<Handler>)` and not be used again.
unsafe extern "C" fn free_handler(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(opaque.cast::<Handler>()) });
}

/// The addresses that the network's DHCP server has leased to a NIC.
pub fn leases(network: &Network, mac: &str) -> Result<Vec<String>, Error> {
    let mac = CString::new(mac).unwrap_or_default();
    let mut leases: *mut sys::virNetworkDHCPLeasePtr = std::ptr::null_mut();
    // SAFETY: the network is open, the text ends with zero, and `leases` is where libvirt puts an array of its own.
    let count = unsafe { sys::virNetworkGetDHCPLeases(network.as_ptr(), mac.as_ptr(), &mut leases, 0) };
    let Ok(count) = usize::try_from(count) else {
        return Err(Error::last_error());
    };
    let mut addresses = Vec::new();
    for n in 0..count {
        // SAFETY: libvirt returned `count` leases, each with an address that ends with zero, all ours to free.
        unsafe {
            let lease = *leases.add(n);
            addresses.push(CStr::from_ptr((*lease).ipaddr).to_string_lossy().into_owned());
            sys::virNetworkDHCPLeaseFree(lease);
        }
    }
    // SAFETY: libvirt allocated the array with malloc(), for the caller to free.
    unsafe { libc::free(leases.cast()) };
    Ok(addresses)
}
