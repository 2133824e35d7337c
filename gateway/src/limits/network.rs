//! The networks that count as one client.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the network that counts as one address: of IPv6, the prefix usually assigned to one customer.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    prefix(address, 64)
}

/// Returns the network where one client must not have many: of IPv6, the prefix usually assigned to one site.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    prefix(address, 48)
}

/// Masks an IPv6 address to its first `bits` bits.
fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> bits)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_counts_as_one_address() {
        let parsed = |text: &str| network(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff:1"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:192.0.2.1"), parsed("192.0.2.1"));
        let site = |text: &str| site(text.parse().unwrap());
        assert_eq!(site("2001:db8:0:1::1"), site("2001:db8:0:ffff::1"));
        assert_ne!(site("2001:db8:1::1"), site("2001:db8:2::1"));
    }
}
