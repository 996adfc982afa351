//! The filter that holds back what the kernel says of multicast memberships (IGMP).
//!
//! The kernel tells routers of a group that is joined, says it again, answers their questions for as long as the group is joined, and says that
//! it is left when the last socket closes, be it because the process was killed. None of this asks the gate. So a filter stands on the
//! interface (nftables, docs/satcom.md) which drops IGMP by itself, and lets it pass only for [`FILTER_HOLDS`](crate::emcon::FILTER_HOLDS)
//! after the node has said so: a datagram from the interface's address to itself that the filter takes from the loopback interface. Nobody
//! needs rights for that, and a node that has died holds nothing open.
//!
//! What the filter took it drops, and the kernel says that to the sender: so a node knows whether there is one, and joins nothing without it.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// Port of the word that lets IGMP pass for a while.
pub const OPEN: u16 = 2757;
/// Port of the word that ends it.
pub const CLOSE: u16 = 2758;

/// The filter of one interface, as far as the node has to do with it.
#[derive(Debug)]
pub struct Filter {
    interface: Ipv4Addr,
    socket: UdpSocket,
}

impl Filter {
    /// The filter of the interface with this address; `None` where the kernel speaks no IGMP.
    pub fn of(interface: Ipv4Addr) -> Result<Option<Self>, String> {
        if interface.is_loopback() {
            return Ok(None);
        }
        let open = || {
            let socket = UdpSocket::bind((interface, 0))?;
            socket.set_nonblocking(true)?;
            hear_of_drops(&socket)?;
            Ok(socket)
        };
        let socket = open().map_err(|e: io::Error| format!("cannot bind {interface}: {e}"))?;
        Ok(Some(Self { interface, socket }))
    }

    /// IGMP may pass for a while.
    pub fn open(&self) -> Result<(), String> {
        self.say(OPEN)
    }

    /// IGMP may not pass from here on.
    pub fn close(&self) -> Result<(), String> {
        self.say(CLOSE)
    }

    fn say(&self, port: u16) -> Result<(), String> {
        let interface = self.interface;
        match self.socket.send_to(&[0], (interface, port)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(e) if e.kind() != io::ErrorKind::ConnectionRefused => {
                Err(format!("cannot speak to the filter of {interface}: {e}"))
            }
            // It went through, or this is the answer to one that did.
            Ok(_) | Err(_) => Err(format!(
                "nothing holds IGMP back on the interface of {interface} in silence, so no group is joined there: \
                 set its filter up as docs/satcom.md says (port {port}), or write join = \"static\""
            )),
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// The kernel says what became of a datagram where it was dropped on its way out (ENOBUFS).
fn hear_of_drops(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    #[expect(unsafe_code, reason = "one option of a socket; there is no safe wrapper")]
    // SAFETY: the descriptor is open while `socket` is borrowed, and the option is an int whose address and size are those of `on`.
    let done = unsafe {
        let value = core::ptr::from_ref(&on).cast();
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_RECVERR,
            value,
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
