//! Where a recipient's copy goes next.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Mailbox, PeerName};

/// One next step for a recipient, as the route table chose it. Recomputed, never stored with the message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Hop {
    /// A mailbox on this node (Maildir).
    Local,
    /// An SMTP next hop, `host:port`.
    Smtp(String),
    /// An LMTP server: a Unix socket path or `host:port`.
    Lmtp(String),
    /// A neighbouring Aldis node over the air.
    Peer(PeerName),
    /// Kept until an operator says otherwise.
    Hold,
    /// This node itself: it is asked for a part of a message that went reduced.
    Fetch,
    /// An SMTP next hop that the profile describes under this name.
    Smarthost(String),
    /// The hosts that the MX records of this domain name, in lower case. Empty in a route: it is the recipient's.
    Mx(String),
}

impl Hop {
    /// The hop of a route for mail to an address.
    pub fn towards(&self, address: &Mailbox) -> Self {
        match self {
            Self::Mx(domain) if domain.is_empty() => Self::Mx(address.domain().to_lowercase()),
            other => other.clone(),
        }
    }

    /// As the profile names it, whatever domain it stands for.
    pub fn in_profile(&self) -> String {
        match self {
            Self::Mx(_) => "mx".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Hop {
    /// As a profile writes it, with the domain where the profile leaves that to the recipient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Smtp(to) => write!(f, "smtp:{to}"),
            Self::Lmtp(to) => write!(f, "lmtp:{to}"),
            Self::Peer(peer) => write!(f, "peer:{peer}"),
            Self::Hold => f.write_str("hold"),
            Self::Fetch => f.write_str("fetch"),
            Self::Smarthost(name) => write!(f, "smarthost:{name}"),
            Self::Mx(domain) if domain.is_empty() => f.write_str("mx"),
            Self::Mx(domain) => write!(f, "mx:{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_by_mx_leads_each_address_to_its_own_domain() {
        let route = Hop::Mx(String::new());
        let hop = route.towards(&Mailbox::new("ops@Far.Example"));
        assert_eq!(hop, Hop::Mx("far.example".into()));
        assert_eq!((hop.to_string(), hop.in_profile()), ("mx:far.example".into(), "mx".into()));
        assert_eq!(route.to_string(), "mx");
        assert_eq!(hop.towards(&Mailbox::new("ops@other.example")), hop);
        assert_eq!(Hop::Hold.towards(&Mailbox::new("ops@far.example")), Hop::Hold);
    }
}
