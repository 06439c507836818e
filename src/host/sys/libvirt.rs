//! Functions that the `virt` crate lacks: domain events, the leases of a network, and the announcement of a NIC by its guest.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::network::Network;
use virt::sys;

use crate::guest::event::{Change, lifecycle, plugged};

/// A handler of a domain's UUID, id and change.
type Handler = Box<dyn Fn(&str, Option<u32>, Change) + Send + Sync>;
/// A callback as libvirt's registration takes it, whatever the arguments of its event.
type Callback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// Why the event loop cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// libvirt refuses.
    #[error("cannot start libvirt's event loop: {0}")]
    Refused(String),
    /// No thread can be started.
    #[error("cannot start libvirt's event loop: no thread: {0}")]
    Thread(std::io::Error),
}

/// libvirt's event loop on a thread of its own, until this is dropped.
///
/// It must run before the first connection is opened and outlive the last. Dropping it joins the thread: a process that
/// ends while libvirt still runs in another thread is torn apart by the destructors of libvirt's own libraries (seen as
/// `malloc_consolidate(): invalid chunk size` once in a hundred times).
#[derive(Debug)]
pub struct EventLoop {
    stop: Arc<AtomicBool>,
    /// A timer of the loop that never fires by itself.
    wake: c_int,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the loop.
    pub fn start() -> Result<Self, EventLoopError> {
        static REFUSED: OnceLock<Option<String>> = OnceLock::new();
        let register = || {
            // Otherwise libvirt prints its errors to standard error.
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().err().map(|error| error.message().to_owned())
        };
        if let Some(why) = REFUSED.get_or_init(register) {
            return Err(EventLoopError::Refused(why.clone()));
        }
        // SAFETY: the callback takes nothing from its opaque pointer, which is null.
        let wake = unsafe { sys::virEventAddTimeout(-1, Some(rest), std::ptr::null_mut(), None) };
        if wake < 0 {
            return Err(EventLoopError::Refused(Error::last_error().message().to_owned()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            while !stopped.load(Ordering::Acquire) && virt::event::event_run_default_impl().is_ok() {}
        };
        let thread = std::thread::Builder::new().name("libvirt".into()).spawn(run);
        Ok(EventLoop { stop, wake, thread: Some(thread.map_err(EventLoopError::Thread)?) })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // SAFETY: the timer is ours; updating it wakes the loop from any thread.
        unsafe { sys::virEventUpdateTimeout(self.wake, 0) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // SAFETY: the timer is ours, and is not used again.
        unsafe { sys::virEventRemoveTimeout(self.wake) };
    }
}

/// The loop has woken up, which is the timer's only purpose.
extern "C" fn rest(timer: c_int, _: *mut c_void) {
    // SAFETY: libvirt calls this with a timer that exists.
    unsafe { sys::virEventUpdateTimeout(timer, -1) };
}

/// A subscription to events of a connection's domains, for as long as it exists.
pub struct Subscription {
    connection: Connect,
    id: c_int,
}

impl Subscription {
    /// Calls `handler` on libvirt's thread whenever a domain starts, stops, pauses or resumes.
    pub fn lifecycle(
        connection: &Connect,
        handler: impl Fn(&str, Option<u32>, Change) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        // SAFETY: libvirt's own VIR_DOMAIN_EVENT_CALLBACK() cast; for this event's id it calls the pointer back with the
        // arguments of `Lifecycle`.
        let callback = unsafe { std::mem::transmute::<Lifecycle, Callback>(on_lifecycle) };
        Self::new(connection, sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, callback, Box::new(handler))
    }

    /// Calls `handler` on libvirt's thread whenever a device is added to a domain.
    pub fn device_added(
        connection: &Connect,
        handler: impl Fn(&str, Option<u32>, Change) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        type Added = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
        // SAFETY: as above, with the arguments of `Added`.
        let callback = unsafe { std::mem::transmute::<Added, Callback>(on_device_added) };
        Self::new(connection, sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, callback, Box::new(handler))
    }

    fn new(connection: &Connect, event: u32, callback: Callback, handler: Handler) -> Result<Self, Error> {
        // Boxed twice: C takes a thin pointer.
        let opaque = Box::into_raw(Box::new(handler)).cast::<c_void>();
        // SAFETY: the connection is open; the callback and the function that frees `opaque` fit what it points to.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection.as_ptr(),
                std::ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque,
                Some(free_box::<Handler>),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt frees `opaque` only after a success; it is still the box made above.
            unsafe { free_box::<Handler>(opaque) };
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
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    if let Some(change) = lifecycle(event, detail) {
        // SAFETY: the caller's promise.
        unsafe { handle(domain, change, opaque) };
    }
    0
}

/// # Safety
///
/// As for [`on_lifecycle`].
unsafe extern "C" fn on_device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    if alias.is_null() {
        return;
    }
    // SAFETY: libvirt passes a text that ends with a zero byte.
    let alias = unsafe { CStr::from_ptr(alias) }.to_string_lossy();
    if let Some(change) = plugged(&alias) {
        // SAFETY: the caller's promise.
        unsafe { handle(domain, change, opaque) };
    }
}

/// # Safety
///
/// As for [`on_lifecycle`].
unsafe fn handle(domain: sys::virDomainPtr, change: Change, opaque: *mut c_void) {
    let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the buffer has the length that libvirt documents for a UUID's text.
    if domain.is_null() || unsafe { sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) } < 0 {
        return;
    }
    // SAFETY: libvirt has written a text with its zero byte.
    let uuid = unsafe { CStr::from_ptr(uuid.as_ptr()) };
    // SAFETY: the domain is valid; its id is -1 if it does not run.
    let id = Some(unsafe { sys::virDomainGetID(domain) }).filter(|id| *id != u32::MAX);
    // SAFETY: the caller's promise; libvirt frees the handler only after its last call.
    let handler = unsafe { &*opaque.cast::<Handler>() };
    // A panic must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(|| handler(&uuid.to_string_lossy(), id, change)));
}

/// A handler of a connection's end.
type CloseHandler = Box<dyn Fn() + Send + Sync>;

/// A connection's close callback, for as long as it exists.
pub struct CloseCallback {
    connection: Connect,
}

impl CloseCallback {
    /// Calls `handler` on libvirt's thread when the connection breaks: its daemon ended, or does not answer.
    ///
    /// A driver inside this process takes the callback and never calls it.
    pub fn new(connection: &Connect, handler: impl Fn() + Send + Sync + 'static) -> Result<Self, Error> {
        let handler: CloseHandler = Box::new(handler);
        let opaque = Box::into_raw(Box::new(handler)).cast::<c_void>();
        // SAFETY: the connection is open; the callback and the function that frees `opaque` fit what it points to.
        let done = unsafe {
            sys::virConnectRegisterCloseCallback(
                connection.as_ptr(),
                Some(on_close),
                opaque,
                Some(free_box::<CloseHandler>),
            )
        };
        if done < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt frees `opaque` only after a success; it is still the box made above.
            unsafe { free_box::<CloseHandler>(opaque) };
            return Err(error);
        }
        Ok(CloseCallback { connection: connection.clone() })
    }
}

impl Drop for CloseCallback {
    fn drop(&mut self) {
        // SAFETY: the connection is still open, as this holds a reference, and the callback is its own.
        unsafe { sys::virConnectUnregisterCloseCallback(self.connection.as_ptr(), Some(on_close)) };
    }
}

/// # Safety
///
/// `opaque` must be the pointer that [`CloseCallback::new`] gave to libvirt.
unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: the caller's promise; libvirt frees the handler only after its last call.
    let handler = unsafe { &*opaque.cast::<CloseHandler>() };
    // A panic must not unwind into C.
    let _ = catch_unwind(AssertUnwindSafe(handler));
}

/// # Safety
///
/// `opaque` must come from `Box::into_raw(Box<T>)` and not be used again.
unsafe extern "C" fn free_box<T>(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(opaque.cast::<T>()) });
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

/// `virDomainAnnounceInterface()`, with its arguments in libvirt's `include/libvirt/libvirt-domain.h`.
type AnnounceInterface =
    unsafe extern "C" fn(sys::virDomainPtr, *const c_char, sys::virTypedParameterPtr, c_int, c_uint) -> c_int;

/// libvirt has that function since 12.5. It is looked up here, since the program starts with an older libvirt, too.
fn function() -> Option<AnnounceInterface> {
    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"virDomainAnnounceInterface".as_ptr()) };
    // SAFETY: where it exists, libvirt keeps its signature for as long as it is libvirt.so.0; null becomes `None`.
    unsafe { std::mem::transmute::<*mut c_void, Option<AnnounceInterface>>(found) }
}

/// Whether the libvirt that this program is linked with can have a guest announce a NIC.
pub fn can_announce_interface() -> bool {
    function().is_some()
}

/// Has a guest announce a NIC, by its MAC address or the host's end of it, with libvirt's parameters. `None`: libvirt is too old.
pub fn announce_interface(
    guest: &Domain,
    nic: &str,
    parameters: &[(&CStr, u32)],
) -> Option<Result<(), Error>> {
    let announce = function()?;
    let nic = CString::new(nic).unwrap_or_default();
    let mut list: sys::virTypedParameterPtr = std::ptr::null_mut();
    let (mut count, mut room) = (0, 0);
    for (name, value) in parameters {
        // SAFETY: `list` has `count` parameters and room for `room`, as libvirt itself keeps them; the name ends with zero.
        unsafe { sys::virTypedParamsAddUInt(&mut list, &mut count, &mut room, name.as_ptr(), *value) };
    }
    // SAFETY: the domain is open, the text ends with zero, and the list has `count` parameters.
    let done = unsafe { announce(guest.as_ptr(), nic.as_ptr(), list, count, 0) };
    let error = Error::last_error();
    // SAFETY: libvirt has allocated the list with its `count` parameters, and it is not used again.
    unsafe { sys::virTypedParamsFree(list, count) };
    Some(if done < 0 { Err(error) } else { Ok(()) })
}
